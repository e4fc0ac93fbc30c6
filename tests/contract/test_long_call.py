"""What a call of hours must not pile up: counted in things that are kept, for memory itself moves for many reasons."""

import asyncio

import pytest
from livekit.agents import inference, stt, vad

from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Detectors
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import Outages
from relay.capture.health.progress import Backpressure
from relay.capture.health.watchdog import Watchdog
from relay.capture.session.stream_session import StreamSession
from relay.capture.vad.provider import MIN_SILENCE_S
from relay.capture.vad.tap import TappedVad
from relay.clock import SystemClock
from relay.speech.observations import Observation, StateChanged, VadEnded, VadStarted
from tests.support.audio.speech import a_track, speech
from tests.support.providers.streaming_stt import StreamingStt


class _Puzzling(stt.RecognizeStream):
    """Understands nothing."""

    async def _run(self) -> None:
        async for _ in self._input_ch:
            pass


async def test_livekit_keeps_no_record_of_a_call_in_which_nothing_is_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a text no turn ever ends, and LiveKit's events go on: the user's state, speech that has no text."""
    monkeypatch.setattr("relay.capture.session.stream_session.LOOK_EVERY_S", 0.05)
    states, kept = 0, []

    def observe(observation: Observation) -> None:
        nonlocal states
        states += isinstance(observation, StateChanged)
        # Through `AgentSession._recorded_events`, as relay.capture.session.tap.
        kept.append(len(session._listening_session._session._recorded_events))

    detectors = Detectors(
        vad="livekit",
        stt="puzzled",
        shared_vad=inference.VAD(min_silence_duration=MIN_SILENCE_S),
        new_stt=lambda: StreamingStt(_Puzzling),
        tail_s=MIN_SILENCE_S + 0.7,
        paced=("vad",),
    )
    audio = WavSource(speech("two_cities.wav"), realtime=False)
    session = StreamSession(a_track(audio), detectors, observe, SystemClock(), realtime=False)
    await session.start()
    await session.ended()
    await session.close("unpublished")

    assert states >= 10
    assert max(kept) <= states // 2, "each change of the user's state is an event"


async def test_a_session_is_not_told_of_every_inference() -> None:
    edges: list[VadStarted | VadEnded] = []
    guard, lead = ErrorGuard(), Backpressure("vad")
    ear = TappedVad(
        inference.VAD(min_silence_duration=MIN_SILENCE_S),
        report=edges.append,
        on_closed=lambda: None,
        lead=lead,
        guard=guard,
        outages=Outages(SystemClock(), lambda observation: None, lambda message: None),
        watchdog=Watchdog(live=False, muted=False, transcribed=False),
    ).stream()
    async for frame in WavSource(speech("beckett.wav"), realtime=False):
        ear.push_frame(frame)
    told: list[vad.VADEventType] = []
    async with asyncio.timeout(60):
        while len(told) < 10:
            told.append((await anext(ear)).type)
    await ear.aclose()

    assert told == [vad.VADEventType.START_OF_SPEECH, vad.VADEventType.END_OF_SPEECH] * 5
    assert [type(edge) for edge in edges[:10]] == [VadStarted, VadEnded] * 5
