"""Reads a sound file as an audio source."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from livekit import rtc

from relay.capture.audio.frames import mono
from relay.capture.audio.source import SAMPLE_RATE
from relay.errors import AudioError

_FRAME = SAMPLE_RATE // 50
"""Samples: 20 ms, like a LiveKit track."""


class WavSource:
    """The audio of a file, downmixed and resampled: WAV of any rate, width and number of channels, or any other format
    that FFmpeg reads.

    With ``realtime``, frames are paced by the event loop at the speed of speech; without it they come as fast as they
    are read. Raises AudioError: here for a file that is not readable audio, from the iteration for a truncated one.
    """

    dropped_ms = 0

    def __init__(self, path: Path, *, realtime: bool = True) -> None:
        self._path = path
        self._realtime = realtime
        self._closed = asyncio.Event()
        self._frames = self._read()
        self._ready: rtc.AudioFrame | None = None
        self._began: float | None = None
        self._samples = 0
        if next(self._read(), None) is None:
            raise AudioError(f"{path}: there is no audio in it; give a WAV file with speech")

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        return self

    async def __anext__(self) -> rtc.AudioFrame:
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
        if self._ready is None:
            self._ready = next(self._frames, None)
        if (frame := self._ready) is None:
            raise StopAsyncIteration
        # A frame is available once its end was spoken.
        spoken = self._samples + frame.samples_per_channel
        await self._until(self._began + spoken / SAMPLE_RATE if self._realtime else 0.0)
        if self._closed.is_set():
            raise StopAsyncIteration
        self._ready, self._samples = None, spoken
        return frame

    async def aclose(self) -> None:
        self._closed.set()

    async def _until(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        if due <= loop.time():
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout_at(due):
                await self._closed.wait()
        except TimeoutError:
            return

    def _read(self) -> Iterator[rtc.AudioFrame]:
        resampler: AudioResampler | None = None
        try:
            with av.open(self._path) as container:
                if not container.streams.audio:
                    raise AudioError(f"{self._path}: there is no audio in it; give a WAV file with speech")
                for decoded in container.decode(audio=0):
                    resampler = resampler or _resampler(decoded.layout.nb_channels)
                    yield from map(_frame, resampler.resample(decoded))
                if resampler is not None:
                    yield from map(_frame, resampler.resample(None))
        except FileNotFoundError:
            raise AudioError(f"{self._path}: there is no such file") from None
        except (OSError, av.FFmpegError) as error:
            raise AudioError(f"{self._path}: cannot be read as audio ({error.strerror}); give a WAV file") from None


def _resampler(channels: int) -> AudioResampler:
    layout = "stereo" if channels == 2 else "mono"
    return AudioResampler(format="s16", layout=layout, rate=SAMPLE_RATE, frame_size=_FRAME)


def _frame(decoded: AudioFrame) -> rtc.AudioFrame:
    channels = decoded.layout.nb_channels
    # PyAV pads planes for alignment; use the samples only.
    data = bytes(cast("memoryview", decoded.planes[0]))[: decoded.samples * 2 * channels]
    return mono(rtc.AudioFrame(data, SAMPLE_RATE, channels, decoded.samples))
