"""What a session's own detectors cannot hear is told of, too."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import (
    APIConnectionError,
    APIConnectOptions,
    APIStatusError,
    inference,
)
from livekit.agents.voice.agent_session import SessionConnectOptions

from relay import SpeechRelay
from relay.capture.health.supervisor import StreamSupervisor
from relay.embedded import recording
from relay.embedded import vad as embedded_vad
from relay.errors import OutboxError
from relay.events.stream import SourceFailed, SourceRecovered
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from relay.speech.observations import Observation, SourceDown
from tests.support.audio.story import Stream, assert_whole, told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.embedding import Conversation, Job, Spoken, configured, ever_tried
from tests.support.livekit.failing_parts import Brittle, Failing, Instead, ending, raising, silent

pytestmark = pytest.mark.speech

REFUSED = APIStatusError("a transcript", status_code=401)
UNREACHABLE = APIConnectionError("a transcript")


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
    opens, reports, over = Outbox.open_stream, StreamSupervisor.report, threading.Event()

    async def late(*args: Any, **options: Any) -> StreamLog:
        if not over.is_set():
            raise OutboxError("the disk is full")
        return await opens(*args, **options)

    def report(supervisor: StreamSupervisor, observation: Observation) -> None:
        reports(supervisor, observation)
        if isinstance(observation, SourceDown):
            over.set()

    monkeypatch.setattr(Outbox, "open_stream", late)
    monkeypatch.setattr(StreamSupervisor, "report", report)
    monkeypatch.setattr(recording, "RETRY_S", 0.05)
    stream = await overheard(tmp_path, vad=Brittle(ending))
    assert stream.types()[:2] == ["stream.started", "source.failed"]
    assert sources(stream) == [("source.failed", "vad", "lost")]


async def test_detection_that_works_is_never_told_of(tmp_path: Path) -> None:
    assert not sources(await overheard(tmp_path))


async def test_a_stream_that_begins_while_a_detector_is_down_is_told_so(tmp_path: Path) -> None:
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        having = Conversation(
            job,
            vad=relay.vad(inference.VAD()),
            stt=relay.stt(Failing(*[REFUSED] * 9)),
            conn_options=SessionConnectOptions(max_unrecoverable_errors=9),
        )
        relay.attach(having.session, job.context)

        def streams() -> list[Stream]:
            return told(receiver.answered, SECRET)

        talking = asyncio.create_task(having())
        try:
            await receiver.wait_for(lambda: any("source.failed" in stream.types() for stream in streams()))
            having.session.linked = job.room.joined("bob")
            await receiver.wait_for(lambda: sum("source.failed" in stream.types() for stream in streams()) == 2)
            await talking
        finally:
            await job.shut_down()
