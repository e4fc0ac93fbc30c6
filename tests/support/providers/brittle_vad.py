"""Voice activity detection that hangs in the first participant's first speech; loaded as Silero."""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import inference, vad

_PLUGIN = "from tests.support.providers.brittle_vad import VAD as VAD\n"


def shadow_silero(folder: Path) -> str:
    """Replace Silero for a process that has the returned path in front of its PYTHONPATH. (``livekit.plugins`` is a
    namespace: the first entry wins.)"""
    plugin = folder / "plugins/livekit/plugins/silero"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text(_PLUGIN)
    return str(folder / "plugins")


class VAD(vad.VAD):
    """LiveKit's own detector, except for a process's first stream: once it has detected the start of speech, it takes
    audio and reports nothing more."""

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
