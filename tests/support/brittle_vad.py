"""Voice activity detection that hangs in the first participant's first speech, for a service to load as Silero."""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import inference, vad

_PLUGIN = "from tests.support.brittle_vad import VAD as VAD\n"


def shadow_silero(folder: Path) -> str:
    """Put this in Silero's place for a process with the path that is returned in front of its PYTHONPATH.
    (``livekit.plugins`` is a namespace: whoever comes first has the name.)"""
    plugin = folder / "plugins/livekit/plugins/silero"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text(_PLUGIN)
    return str(folder / "plugins")


class VAD(vad.VAD):
    """LiveKit's own detector, but for the first stream that is made in a process: once it has heard speech begin, it
    takes audio and says nothing any more."""

    def __init__(self, **options: Any) -> None:
        super().__init__(capabilities=vad.VADCapabilities(update_interval=0.032))
        self._sound = inference.VAD(**options)
        self._streams = count()

    @classmethod
    def load(cls, **options: Any) -> "VAD":
        return cls(**options)

    def stream(self) -> vad.VADStream:
        sound = self._sound.stream()
        return _Hanging(self, sound) if next(self._streams) == 0 else sound


class _Hanging(vad.VADStream):
    def __init__(self, owner: VAD, sound: vad.VADStream) -> None:
        self._sound = sound
        super().__init__(owner)

    async def _main_task(self) -> None:
        feeding = asyncio.create_task(self._feed())
        try:
            async for event in self._sound:
                self._event_ch.send_nowait(event)
                if event.type is vad.VADEventType.START_OF_SPEECH:
                    await asyncio.Event().wait()
        finally:
            feeding.cancel()
            await self._sound.aclose()

    async def _feed(self) -> None:
        async for frame in self._input_ch:
            if isinstance(frame, rtc.AudioFrame):
                self._sound.push_frame(frame)
