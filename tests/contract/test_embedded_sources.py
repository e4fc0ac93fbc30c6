"""What a session's own detectors cannot hear is told of, too."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import (
    APIConnectionError,
    APIConnectOptions,
    APIError,
    APIStatusError,
    ErrorEvent,
    inference,
    llm,
    stt,
    vad,
)
from livekit.agents.voice.agent_session import SessionConnectOptions

from relay import SpeechRelay
from relay.capture.outages import Outages
from relay.clock import SystemClock
from relay.embedded import recording
from relay.embedded import vad as embedded_vad
from relay.embedded.failures import QUIET_S, Failures
from relay.errors import OutboxError
from relay.events.source import SourceFailed, SourceRecovered
from relay.outbox.outbox import Outbox
from relay.outbox.stream_log import StreamLog
from relay.speech.observations import RealtimeStarted, SourceDown, SourceUp, SttTranscript, Transcribed
from tests.support.cli import SECRET
from tests.support.embedding import Conversation, Job, Script, Spoken, configured, ever_tried
from tests.support.receiver import receiving
from tests.support.story import Stream, assert_whole, told

pytestmark = pytest.mark.speech

REFUSED = APIStatusError("a transcript", status_code=401)
UNREACHABLE = APIConnectionError("a transcript")


Instead = Callable[[], AsyncIterator[vad.VADEvent]]


class Failing(Script):
    """Speech recognition whose first attempts fail."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__(*ever_tried().lines)
        self.failures = list(failures)

    def stream(self, *args: Any, **options: Any) -> stt.RecognizeStream:
        stream = super().stream(*args, **options)
        run = stream._run

        async def failing() -> None:
            if self.failures:
                raise self.failures.pop(0)
            await run()

        stream._run = failing  # type: ignore[method-assign]
        return stream


class Brittle(vad.VAD):
    """LiveKit's own detector; of the first stream, ``instead`` comes once it has heard speech begin."""

    def __init__(self, instead: Instead) -> None:
        super().__init__(capabilities=vad.VADCapabilities(update_interval=0.032))
        self._sound = inference.VAD()
        self._instead = instead

    def stream(self) -> vad.VADStream:
        return _BrittleStream(self, self._sound.stream(), self._instead)


class _BrittleStream(vad.VADStream):
    def __init__(self, owner: vad.VAD, sound: vad.VADStream, instead: Instead) -> None:
        self._sound, self._instead = sound, instead
        super().__init__(owner)

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self._sound.push_frame(frame)

    async def _main_task(self) -> None:
        try:
            async for event in self._sound:
                self._event_ch.send_nowait(event)
                if event.type is vad.VADEventType.START_OF_SPEECH:
                    break
            async for event in self._instead():
                self._event_ch.send_nowait(event)
        finally:
            await self._sound.aclose()


async def raising() -> AsyncIterator[vad.VADEvent]:
    raise RuntimeError("a transcript")
    yield


async def ending() -> AsyncIterator[vad.VADEvent]:
    return
    yield


async def silent() -> AsyncIterator[vad.VADEvent]:
    await asyncio.Event().wait()
    return
    yield


async def overheard(
    folder: Path, *, seconds: float = 4.0, on_close: Callable[[], None] = lambda: None, **parts: Any
) -> Stream:
    """What is told of one conversation."""
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(folder, receiver.url)), Job()
        detector, recognizer = parts.pop("vad", None) or inference.VAD(), parts.pop("stt", None) or ever_tried()
        having = Conversation(
            job,
            vad=relay.vad(detector),
            stt=relay.stt(recognizer),
            conn_options=SessionConnectOptions(stt_conn_options=APIConnectOptions(retry_interval=0.05), **parts),
        )
        having.spoken = Spoken(1.6, seconds - 1.6)
        having.session.on("close", lambda _: having.spoken.over.set())
        having.session.on("close", lambda _: on_close())
        relay.attach(having.session, job.context)
        await having()
        await job.shut_down()
        await receiver.wait_for(lambda: any(stream.end for stream in told(receiver.answered, SECRET)))
        (stream,) = told(receiver.answered, SECRET)
    assert "a transcript" not in "".join(request.body.decode() for request in receiver.requests)
    assert_whole(stream)
    return stream


def sources(stream: Stream) -> list[tuple[str, str, str]]:
    return [
        (event.type, event.data.detector, event.data.reason)
        for event in stream.events
        if isinstance(event, SourceFailed | SourceRecovered)
    ]


async def test_a_failure_that_passes_with_the_next_attempt_is_not_told(tmp_path: Path) -> None:
    stream = await overheard(tmp_path, stt=Failing(UNREACHABLE))
    assert not sources(stream)
    assert stream.text == "Ever tried."


async def test_a_provider_that_is_away_and_comes_back_is_told_of_once_each(tmp_path: Path) -> None:
    stream = await overheard(tmp_path, stt=Failing(UNREACHABLE, UNREACHABLE, UNREACHABLE))
    assert sources(stream) == [
        ("source.failed", "stt", "unreachable"),
        ("source.recovered", "stt", "unreachable"),
    ]
    assert stream.text == "Ever tried."


async def test_a_provider_that_refuses_is_told_of_at_once(tmp_path: Path) -> None:
    stream = await overheard(tmp_path, stt=Failing(REFUSED))
    assert sources(stream) == [("source.failed", "stt", "refused"), ("source.recovered", "stt", "refused")]


async def test_a_session_that_closes_for_an_error_says_so(tmp_path: Path) -> None:
    stream = await overheard(tmp_path, stt=Failing(*[REFUSED] * 9), max_unrecoverable_errors=0)
    assert sources(stream) == [("source.failed", "stt", "refused"), ("source.failed", "session", "lost")]


@pytest.mark.parametrize("instead", [raising, ending])
async def test_voice_activity_detection_that_breaks_ends_what_is_open(tmp_path: Path, instead: Instead) -> None:
    stream = await overheard(tmp_path, vad=Brittle(instead))
    assert sources(stream) == [("source.failed", "vad", "lost")]
    assert stream.ends[0] == "detector_lost"
    assert stream.text == "Ever tried.", "speech recognition goes on"


async def test_voice_activity_detection_that_hangs_ends_what_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_vad, "INFERENCE_WITHIN_S", 0.5)
    stream = await overheard(tmp_path, vad=Brittle(silent))
    assert sources(stream) == [("source.failed", "vad", "stalled")]
    assert stream.ends[0] == "detector_lost"


async def test_what_fails_before_the_log_is_open_comes_after_what_was_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, over = Outbox.open, threading.Event()

    async def late(*args: Any, **options: Any) -> Outbox:
        await asyncio.to_thread(over.wait, 20)
        return await opens(*args, **options)

    monkeypatch.setattr(Outbox, "open", late)
    stream = await overheard(tmp_path, vad=Brittle(ending), on_close=over.set)
    assert sources(stream) == [("source.failed", "vad", "lost")]
    assert stream.types().index("speech.started") < stream.types().index("source.failed")
    assert stream.ends[0] == "detector_lost"


async def test_what_fails_while_nothing_can_be_written_is_told_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, over = Outbox.open_stream, threading.Event()

    async def late(*args: Any, **options: Any) -> StreamLog:
        if not over.is_set():
            raise OutboxError("the disk is full")
        return await opens(*args, **options)

    async def breaking() -> AsyncIterator[vad.VADEvent]:
        asyncio.get_running_loop().call_later(0.3, over.set)
        return
        yield

    monkeypatch.setattr(Outbox, "open_stream", late)
    monkeypatch.setattr(recording, "RETRY_S", 0.05)
    stream = await overheard(tmp_path, vad=Brittle(breaking))
    assert stream.types()[:2] == ["stream.started", "source.failed"]
    assert sources(stream) == [("source.failed", "vad", "lost")]


async def test_detection_that_works_is_never_told_of(tmp_path: Path) -> None:
    assert not sources(await overheard(tmp_path))


def test_a_detector_is_not_blamed_for_what_nobody_gave_it() -> None:
    pulse = embedded_vad._Pulse()
    assert not pulse.missed(0.0)
    pulse.felt()
    assert not pulse.missed(0.0)
    assert not pulse.missed(60.0), "a minute in which the session gave it nothing"
    assert not pulse.missed(60.9)
    pulse.felt()
    times = [61.0 + tenth / 10 for tenth in range(52)]
    assert [pulse.missed(at) for at in times] == [False] * 50 + [True] * 2


def test_a_detector_that_never_answers_audio_by_audio_owes_nothing() -> None:
    pulse = embedded_vad._Pulse()
    assert not any(pulse.missed(at / 10) for at in range(1000))


class Ledger:
    """Failures at given times, and what is told of them."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.failures = Failures(Outages(SystemClock(), self._tell, lambda words: None))

    def _tell(self, observation: SourceDown | SourceUp) -> None:
        self.told.append(("down" if isinstance(observation, SourceDown) else "up", observation.detector))

    def speech(self, error: Exception, at: float, *, recoverable: bool = True) -> None:
        said = stt.STTError(timestamp=0.0, label="", error=error, recoverable=recoverable)
        self.failures.failed(ErrorEvent(error=said, source=None), at)

    def model(self, error: Exception, at: float, *, recoverable: bool = True) -> None:
        said = llm.RealtimeModelError(timestamp=0.0, label="", error=error, recoverable=recoverable)
        self.failures.failed(ErrorEvent(error=said, source=None), at)


def test_an_attempt_that_stands_is_the_end_of_an_outage() -> None:
    ledger = Ledger()
    ledger.speech(UNREACHABLE, 0.0)
    ledger.failures.look(14.0)
    assert not ledger.told
    ledger.speech(UNREACHABLE, 14.0)
    ledger.failures.look(14.0 + QUIET_S - 0.1)
    assert ledger.told == [("down", "stt")]
    ledger.failures.look(14.0 + QUIET_S)
    assert ledger.told == [("down", "stt"), ("up", "stt")]
    ledger.speech(UNREACHABLE, 60.0)
    ledger.failures.look(60.0 + QUIET_S)
    ledger.speech(UNREACHABLE, 90.0)
    assert len(ledger.told) == 2, "these are not in a row"


def test_nobody_tries_again_after_what_is_unrecoverable_so_silence_is_no_return() -> None:
    ledger = Ledger()
    ledger.speech(UNREACHABLE, 0.0, recoverable=False)
    ledger.failures.look(10 * QUIET_S)
    assert ledger.told == [("down", "stt")]
    ledger.failures.observed(Transcribed("yes", True), "stt")
    assert ledger.told == [("down", "stt"), ("up", "stt")]


def test_a_realtime_models_word_about_a_request_is_no_outage() -> None:
    ledger = Ledger()
    for at in range(5):
        ledger.model(APIError("a transcript", body={"code": "response_cancel_not_active"}, retryable=True), at)
    assert not ledger.told
    ledger.model(APIError("a transcript", body={"code": "insufficient_quota"}, retryable=True), 6.0)
    assert ledger.told == [("down", "realtime")]
    ledger.failures.observed(RealtimeStarted(0), "realtime")
    assert ledger.told == [("down", "realtime"), ("up", "realtime")]


def test_words_of_speech_recognition_are_no_sign_of_life_of_a_model_beside_it() -> None:
    ledger = Ledger()
    ledger.model(UNREACHABLE, 0.0, recoverable=False)
    ledger.failures.observed(SttTranscript("yes", True), "stt")
    ledger.failures.observed(Transcribed("yes", True), "stt")
    assert ledger.told == [("down", "realtime")]
    ledger.failures.observed(SttTranscript("yes", True, detector="realtime"), "stt")
    assert ledger.told == [("down", "realtime"), ("up", "realtime")]


async def test_a_stream_that_begins_while_a_detector_is_down_is_told_so(tmp_path: Path) -> None:
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        having = Conversation(job, vad=relay.vad(inference.VAD()), stt=relay.stt(Failing(*[REFUSED] * 9)))
        relay.attach(having.session, job.context)

        def streams() -> list[Stream]:
            return told(receiver.answered, SECRET)

        talking = asyncio.create_task(having())
        await receiver.wait_for(lambda: any("source.failed" in stream.types() for stream in streams()))
        having.session.linked = job.room.joined("bob")
        await receiver.wait_for(lambda: sum("source.failed" in stream.types() for stream in streams()) == 2)
        await talking
        await job.shut_down()
