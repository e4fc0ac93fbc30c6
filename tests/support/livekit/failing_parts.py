"""Detectors of an embedding agent that fail."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from livekit import rtc
from livekit.agents import inference, stt, vad

from tests.support.livekit.embedding import Script, ever_tried

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
    """LiveKit's own detector; each stream yields ``instead`` once it has detected the start of speech, or ``after``
    that."""

    def __init__(self, instead: Instead, after: vad.VADEventType = vad.VADEventType.START_OF_SPEECH) -> None:
        super().__init__(capabilities=vad.VADCapabilities(update_interval=0.032))
        self._sound = inference.VAD()
        self._instead, self._after = instead, after

    def stream(self) -> vad.VADStream:
        return _BrittleStream(self, self._sound.stream(), self._instead, self._after)


class _BrittleStream(vad.VADStream):
    def __init__(self, owner: vad.VAD, sound: vad.VADStream, instead: Instead, after: vad.VADEventType) -> None:
        self._sound, self._instead, self._after = sound, instead, after
        super().__init__(owner)

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self._sound.push_frame(frame)

    async def _main_task(self) -> None:
        try:
            async for event in self._sound:
                self._event_ch.send_nowait(event)
                if event.type is self._after:
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
