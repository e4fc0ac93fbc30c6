"""A provider that gives up in the ways that real ones do, and is started again."""

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import APIStatusError, LanguageCode, stt
from livekit.agents.types import TimedString

from relay.capture.audio.frames import stamp
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import Outages
from relay.capture.health.progress import Backpressure
from relay.capture.stt.tap import SttTap
from relay.clock import SystemClock
from relay.speech.observations import DetectorLost, SourceDown, SourceUp, SttEnded, SttStarted, SttTranscript
from tests.support.audio.speech import Heard
from tests.support.providers.streaming_stt import StreamingStt

EventType = stt.SpeechEventType


class Moody(StreamingStt):
    """Its first streams start to hear and then do their mood; later ones transcribe."""

    def __init__(self, *moods: Callable[[], None]) -> None:
        super().__init__(MoodyStream)
        self.moods = list(moods)
        self.frames = 0
        """That its newest stream was given."""


class MoodyStream(stt.RecognizeStream):
    async def _run(self) -> None:
        assert isinstance(self._stt, Moody)
        mood = self._stt.moods.pop(0) if self._stt.moods else None
        if mood is refuse:
            refuse()
        self._stt.frames = 0
        async for _ in self._input_ch:
            self._stt.frames += 1
            self._event_ch.send_nowait(stt.SpeechEvent(EventType.START_OF_SPEECH))
            if mood is not None:
                mood()
                return
            said = stt.SpeechData(
                LanguageCode("en"), "word", start_time=self.start_time_offset, end_time=self.start_time_offset + 0.5
            )
            self._event_ch.send_nowait(stt.SpeechEvent(EventType.FINAL_TRANSCRIPT, alternatives=[said]))


def fall_silent() -> None:
    """AssemblyAI on a wrong key: the stream is over, without an error."""


def refuse() -> None:
    """Before it hears anything."""
    raise APIStatusError("Bad key 1234.", status_code=401)


def raise_key_error() -> None:
    raise KeyError("words")


def refuse_to_stream_once(provider: Moody, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(**_: object) -> stt.RecognizeStream:
        monkeypatch.undo()
        raise ValueError("no streaming in this language")

    monkeypatch.setattr(provider, "stream", stream)


class Choking(StreamingStt):
    """Its first streams do not take their third frame; later ones transcribe each."""

    def __init__(self, times: int) -> None:
        super().__init__(ChokingStream)
        self.times = times
        self.streams = 0


class ChokingStream(stt.RecognizeStream):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        assert isinstance(self._stt, Choking)
        self._stt.streams += 1
        self._chokes = self._stt.streams <= self._stt.times
        self._pushed = 0

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self._pushed += 1
        if self._chokes and self._pushed >= 3:
            raise ValueError("the sample rate of the input frames must be consistent")
        super().push_frame(frame)

    async def _run(self) -> None:
        async for _ in self._input_ch:
            if not self._chokes:
                said = stt.SpeechData(LanguageCode("en"), "word", start_time=self.start_time_offset, end_time=0.0)
                self._event_ch.send_nowait(stt.SpeechEvent(EventType.FINAL_TRANSCRIPT, alternatives=[said]))


NO_TIMES = (math.nan, math.inf, -math.inf, 1e306, 60.0)
"""The last one is a time, but there is not that much audio yet."""


class TimelessStream(stt.RecognizeStream):
    """Transcribes with each of ``NO_TIMES``, and then with a time."""

    async def _run(self) -> None:
        texts = ("not a number", "endless", "before all", "much later", "later", "word")
        for at, text in zip((*NO_TIMES, 0.5), texts, strict=True):
            await self._input_ch.recv()
            word = TimedString(text, start_time=at, end_time=at, confidence=at)
            said = stt.SpeechData(LanguageCode("en"), text, start_time=at, end_time=at, confidence=at, words=[word])
            used = stt.RecognitionUsage(audio_duration=at)
            self._event_ch.send_nowait(
                stt.SpeechEvent(EventType.START_OF_SPEECH, speech_start_time=at, recognition_usage=used)
            )
            self._event_ch.send_nowait(stt.SpeechEvent(EventType.FINAL_TRANSCRIPT, alternatives=[said]))
            self._event_ch.send_nowait(stt.SpeechEvent(EventType.END_OF_SPEECH, alternatives=[said]))
        async for _ in self._input_ch:
            pass


class Times:
    """Frames of 20 ms at real pace, until the tap has heard enough."""

    def __init__(self, enough: Callable[[], bool]) -> None:
        self._enough = enough
        self.position = 0

    async def __aiter__(self) -> Any:
        while not self._enough():
            await asyncio.sleep(0.02)
            frame = rtc.AudioFrame.create(SAMPLE_RATE, 1, 320)
            stamp(frame, self.position)
            self.position += 320
            yield frame


@pytest.fixture
def quiet_livekit(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("CRITICAL", logger="livekit.agents"):
        yield


def a_tap(
    provider: StreamingStt, heard: Heard, faults: list[str], *, voiced: bool = True, guard: ErrorGuard | None = None
) -> SttTap:
    return SttTap(
        provider,
        "moody",
        voiced=voiced,
        report=heard,
        on_speech_lost=lambda: heard(DetectorLost()),
        lead=Backpressure(),
        guard=guard or ErrorGuard(),
        outages=Outages(SystemClock(), heard, faults.append),
    )


@pytest.mark.usefixtures("quiet_livekit")
@pytest.mark.parametrize("mood", [fall_silent, raise_key_error, None])
async def test_it_is_started_again_and_told_what_it_has_not_answered(
    mood: Callable[[], None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, faults = Heard(), list[str]()
    provider = Moody(mood or fall_silent)
    if mood is None:
        provider.moods = []
        refuse_to_stream_once(provider, monkeypatch)

    audio = Times(enough=lambda: bool(heard.of(SttTranscript)))
    passed_on = [event.type async for event in a_tap(provider, heard, faults).events(audio)]

    assert EventType.FINAL_TRANSCRIPT in passed_on
    assert not faults
    assert not heard.of(SourceDown)
    edges = [type(o) for o in heard if isinstance(o, SttStarted | SttEnded)]
    assert edges == [SttStarted, SttEnded] * (len(edges) // 2)
    said = heard.of(SttTranscript)[0]
    assert said.start_ms is not None
    assert (said.end_ms, said.reliable) == (said.start_ms + 500, True)
    # Where it let nobody in, it is told nothing at first, and silence is kept for a second only.
    assert said.start_ms == 0 or mood is None
    assert provider.frames >= (audio.position - said.start_ms * 16) // 320 - 2, "all of it from there on"


@pytest.mark.usefixtures("quiet_livekit")
@pytest.mark.parametrize(("mood", "kind"), [(fall_silent, "it ended its stream"), (raise_key_error, "KeyError")])
async def test_it_fails_twice_and_is_told_once(mood: Callable[[], None], kind: str) -> None:
    heard, faults = Heard(), list[str]()
    provider = Moody(mood, mood)

    audio = Times(enough=lambda: bool(heard.of(SttTranscript)))
    _ = [event async for event in a_tap(provider, heard, faults).events(audio)]

    assert [(one.detector, one.reason) for one in heard.of(SourceDown)] == [("stt", "lost")]
    assert faults == [f"speech recognition by moody failed: {kind}; it is tried again until it answers"]
    [down], [up] = heard.of(SourceDown), heard.of(SourceUp)
    assert (up.reason, up.failed_at) == (down.reason, down.failed_at)
    assert 1_500 <= up.gone_ms < 4_000, "half a second, and a second"
    assert heard.index(down) < heard.index(up) < heard.index(heard.of(SttTranscript)[0])


@pytest.mark.parametrize(("times", "told"), [(1, []), (2, [("stt", "lost")])])
async def test_a_stream_that_does_not_take_a_frame_has_failed(times: int, told: list[tuple[str, str]]) -> None:
    heard, faults = Heard(), list[str]()
    provider = Choking(times)

    audio = Times(enough=lambda: bool(heard.of(SttTranscript)))
    async with asyncio.timeout(30):
        _ = [event async for event in a_tap(provider, heard, faults).events(audio)]

    assert provider.streams == times + 1
    assert [(one.detector, one.reason) for one in heard.of(SourceDown)] == told
    assert [(one.detector, one.reason) for one in heard.of(SourceUp)] == told
    assert ["failed: ValueError;" in fault for fault in faults] == [True] * len(told)


@pytest.mark.usefixtures("quiet_livekit")
async def test_what_was_not_kept_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.capture.stt.replay_buffer._LEAD_IN", SAMPLE_RATE // 10)
    heard = Heard()

    audio = Times(enough=lambda: bool(heard.of(SttTranscript)))
    _ = [event async for event in a_tap(Moody(raise_key_error, raise_key_error), heard, []).events(audio)]

    said, up = heard.of(SttTranscript)[0], heard.of(SourceUp)[0]
    assert said.start_ms is not None
    assert said.start_ms > 40 + 100, "of the outage no more than the last 100 ms are heard again"
    assert up.missed_ms == pytest.approx(said.start_ms - 40, abs=100), "it had heard the first frame, and one more"


@pytest.mark.usefixtures("quiet_livekit")
async def test_without_voice_activity_speech_goes_on_with_the_next_connection() -> None:
    heard = Heard()

    audio = Times(enough=lambda: bool(heard.of(SttTranscript)))
    _ = [event async for event in a_tap(Moody(fall_silent), heard, [], voiced=False).events(audio)]

    assert [type(o) for o in heard][:2] == [SttStarted, SttTranscript]
    assert isinstance(heard[-1], SttEnded)
    assert len(heard.of(SttStarted)) == len(heard.of(SttEnded)) == 1


@pytest.mark.usefixtures("quiet_livekit")
async def test_without_voice_activity_speech_that_cannot_go_on_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.capture.stt.tap.KEPT_S", 1.0)
    heard = Heard()
    tap = a_tap(Moody(fall_silent, refuse, refuse, refuse), heard, [], voiced=False)

    def given_up() -> bool:
        tap.look()
        return bool(heard.of(DetectorLost))

    _ = [event async for event in tap.events(Times(enough=given_up))]

    assert [type(o) for o in heard][:4] == [SttStarted, SourceDown, DetectorLost, SttEnded]
    assert heard.of(SourceDown)[0].reason == "refused"


@pytest.mark.parametrize("voiced", [True, False])
async def test_text_with_times_that_are_none_is_reported_without_them(voiced: bool) -> None:
    heard, faults = Heard(), list[str]()
    guard = ErrorGuard()

    audio = Times(enough=lambda: len(heard.of(SttEnded)) > len(NO_TIMES))
    tap = a_tap(StreamingStt(TimelessStream), heard, faults, voiced=voiced, guard=guard)
    async with asyncio.timeout(30):
        passed_on = [event.type async for event in tap.events(audio)]

    assert passed_on.count(EventType.FINAL_TRANSCRIPT) == len(NO_TIMES) + 1
    finals = heard.of(SttTranscript)
    assert [said.text for said in finals] == ["not a number", "endless", "before all", "much later", "later", "word"]
    assert [said.end_ms for said in finals] == [None] * len(NO_TIMES) + [500]
    assert [said.reliable for said in finals] == [False] * len(NO_TIMES) + [True]
    assert [edge.at_ms for edge in heard.of(SttEnded)] == [None] * len(NO_TIMES) + [500]
    assert len(heard.of(SttStarted)) == len(finals)
    assert guard.failures == 0
    assert not faults
