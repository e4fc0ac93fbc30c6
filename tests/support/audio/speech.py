"""Real speech, and a stream session that processes it."""

import asyncio
import importlib.util
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from livekit import rtc

from relay.capture.audio.frames import comes_after_missed
from relay.capture.audio.source import AudioSource, Track
from relay.capture.detectors import Providers
from relay.capture.health.outages import OnFault
from relay.capture.session.stream_session import StreamSession
from relay.clock import SystemClock
from relay.config.capture import Provider, Realtime
from relay.speech.observations import Observation
from tests.support.builders import ALICE, ROOM

T = TypeVar("T")

_moonshine = importlib.util.find_spec("moonshine_voice")

needs_moonshine = pytest.mark.skipif(_moonshine is None, reason="speech-relay[moonshine] is not installed")


def speech(name: str) -> Path:
    """A recording from the moonshine-voice wheel: beckett.wav (10 s, 16 kHz), two_cities.wav (44 s, 48 kHz)."""
    if _moonshine is None or _moonshine.origin is None:
        pytest.skip("speech-relay[moonshine] is not installed, and with it the recordings")
    return Path(_moonshine.origin).parent / "assets" / name


def write_wav(path: Path, pcm: bytes, *, rate: int = 16_000, channels: int = 1, width: int = 2) -> Path:
    """Write little-endian PCM as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(pcm)
    return path


class Heard(list[Observation]):
    """Observations in the order they came."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, observation: Observation) -> None:
        self.append(observation)
        self._more.set()

    def of(self, kind: type[T]) -> list[T]:
        return [observation for observation in self if isinstance(observation, kind)]

    async def until(self, condition: Callable[["Heard"], bool], within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while not condition(self):
                self._more.clear()
                await self._more.wait()


def a_track(audio: AudioSource, **more: Any) -> Track:
    """Alice's microphone, subscribed to now."""
    subscribed_at = more.pop("subscribed_at", SystemClock().now_ms())
    return Track(ROOM, ALICE, "TR_1", "microphone", audio, subscribed_at, **more)


@asynccontextmanager
async def listening(
    audio: AudioSource,
    observe: Callable[[Observation], None],
    *,
    vad: Provider | None = None,
    stt: Provider | None = None,
    model: Realtime | None = None,
    realtime: bool = False,
    on_fault: OnFault = lambda message: None,
    **track: Any,
) -> AsyncIterator[StreamSession]:
    """A started session; closed at the end, if the test has not closed it. ``model`` is a realtime model that replaces
    the other detectors."""
    providers = Providers(vad or Provider(provider="silero"), stt or Provider(provider="none"), model)
    session = StreamSession(
        a_track(audio, **track), providers.detectors(), observe, SystemClock(), realtime=realtime, on_fault=on_fault
    )
    await session.start()
    try:
        yield session
    finally:
        await session.close("shutdown")
        await providers.aclose()


class Feed:
    """A source that a test feeds manually."""

    dropped_ms = 0

    def __init__(self) -> None:
        self._frames: asyncio.Queue[rtc.AudioFrame | None] = asyncio.Queue()

    def put(self, pcm: bytes, *, missed_ms: int = 0) -> None:
        """16 kHz mono PCM, cut into frames of 20 ms; a remainder is left out. ``missed_ms`` were skipped before."""
        for start in range(0, len(pcm) - 639, 640):
            frame = rtc.AudioFrame(pcm[start : start + 640], 16_000, 1, 320)
            if missed_ms and not start:
                comes_after_missed(frame, missed_ms)
            self._frames.put_nowait(frame)

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        return self

    async def __anext__(self) -> rtc.AudioFrame:
        if (frame := await self._frames.get()) is None:
            raise StopAsyncIteration
        return frame

    async def aclose(self) -> None:
        self._frames.put_nowait(None)
