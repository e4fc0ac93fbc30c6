"""The audio of one LiveKit track."""

import asyncio
from collections.abc import AsyncIterator

from livekit import rtc

from relay.capture.source import SAMPLE_RATE

FRAME_MS = 20
"""Length of a frame. What WebRTC itself sends, so nothing waits for a frame to fill."""


class TrackAudio:
    """An :class:`~relay.capture.source.AudioSource` over a subscribed track.

    Audio is kept from construction on: what comes in while its reader gets ready is not lost. It is read ahead because
    ``rtc.AudioStream`` drops what it still holds once its track has ended, the last word of one who leaves.
    Construct it in a running event loop; iterate it once.
    """

    def __init__(self, track: rtc.Track) -> None:
        self._frames: asyncio.Queue[rtc.AudioFrame | None] = asyncio.Queue()
        self._stream = rtc.AudioStream.from_track(
            track=track, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=FRAME_MS
        )
        self._closed = False
        self._reading = asyncio.create_task(self._read(), name="track_audio")

    async def _read(self) -> None:
        try:
            async for event in self._stream:
                self._frames.put_nowait(event.frame)
        finally:
            self._frames.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        return self

    async def __anext__(self) -> rtc.AudioFrame:
        if self._closed or (frame := await self._frames.get()) is None:
            self._frames.put_nowait(None)
            raise StopAsyncIteration
        return frame

    def finish(self) -> None:
        """The track is gone: the iteration ends after what has come. (``rtc.AudioStream`` goes on waiting.)"""
        self._reading.cancel()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await self._stream.aclose()
