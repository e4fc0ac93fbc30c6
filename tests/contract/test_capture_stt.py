"""A provider that gives up in the ways that real ones do, and is started again."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import APIConnectOptions, LanguageCode, NotGivenOr, stt, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN

from relay.capture.guard import Guard
from relay.capture.lead import Lead
from relay.capture.position import stamp
from relay.capture.source import SAMPLE_RATE
from relay.capture.taps.stt import SttTap
from relay.speech.observations import SttEnded, SttStarted, SttTranscript
from tests.support.speech import Heard

EventType = stt.SpeechEventType


class Moody(stt.STT[Any]):
    """Its first stream starts to hear and then does ``mood``; later ones transcribe."""

    def __init__(self, mood: Callable[[], None]) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.mood: Callable[[], None] | None = mood

    async def _recognize_impl(
        self, buffer: utils.AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        return MoodyStream(stt=self, conn_options=conn_options)


class MoodyStream(stt.RecognizeStream):
    async def _run(self) -> None:
        assert isinstance(self._stt, Moody)
        mood, self._stt.mood = self._stt.mood, None
        async for _ in self._input_ch:
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


def raise_key_error() -> None:
    raise KeyError("words")


def refuse_to_stream_once(provider: Moody, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(**_: object) -> stt.RecognizeStream:
        monkeypatch.undo()
        raise ValueError("no streaming in this language")

    monkeypatch.setattr(provider, "stream", stream)


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


@pytest.mark.usefixtures("quiet_livekit")
@pytest.mark.parametrize(
    ("mood", "kind"), [(fall_silent, "APIConnectionError"), (raise_key_error, "KeyError"), (None, "ValueError")]
)
async def test_it_is_started_again_from_where_the_audio_is_by_then(
    mood: Callable[[], None] | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, faults = Heard(), list[str]()
    provider = Moody(mood or fall_silent)
    if mood is None:
        provider.mood = None
        refuse_to_stream_once(provider, monkeypatch)
    tap = SttTap(provider, "moody", report=heard, lead=Lead(), guard=Guard(), on_fault=faults.append)

    audio = Times(enough=lambda: bool(heard.of(SttTranscript)))
    passed_on = [event.type async for event in tap.events(audio)]

    assert EventType.FINAL_TRANSCRIPT in passed_on
    assert len(faults) == 1
    assert f"moody failed: {kind};" in faults[0]
    assert "words" not in faults[0]
    edges = [type(o) for o in heard if isinstance(o, SttStarted | SttEnded)]
    assert edges == [SttStarted, SttEnded] * (len(edges) // 2)
    said = heard.of(SttTranscript)[0]
    assert said.start_ms is not None
    assert said.end_ms == said.start_ms + 500
    assert 0 < said.start_ms <= audio.position / 16  # from where the audio is by then, which is not its beginning
    assert said.reliable
