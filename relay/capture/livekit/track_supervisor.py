"""Supervises one track that is listened to: opens its listener, replaces it after failures, and closes it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from livekit import rtc

from relay.capture.audio.source import Listener
from relay.capture.health.supervisor import StreamSupervisor
from relay.capture.livekit.track_audio import NoAudio, TrackAudio
from relay.speech.observations import Ended, Muted, Observation

_RETRY_S = (1.0, 1.0, 2.0, 5.0)
"""The waits before a track's listener is opened again; the last one repeats."""

_GONE_WITHIN_S = 1.0
"""The audio of a track that goes away may end before the room reports it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The result of opening a track: its audio, and its listener; None where another process listens."""

    audio: TrackAudio | NoAudio
    listener: Listener | None


class TrackSupervisor(StreamSupervisor):
    """Keeps a listener open. One that fails, or whose audio ends while the track is there, is closed and replaced.
    ``open_track`` gets whether the track is muted."""

    def __init__(self, track_sid: str, muted: bool, open_track: Callable[[bool], Awaitable[Opened]]) -> None:
        super().__init__(track_sid, self._open, muted=muted, waits_s=_RETRY_S)
        self._open_track = open_track
        self._audio: TrackAudio | NoAudio | None = None

    def refuse(self) -> None:
        """The server withholds the track's audio."""
        if self._audio is not None:
            self._audio.refuse()

    def renew(self, track: rtc.Track) -> None:
        """The track was subscribed to again."""
        if self._audio is not None:
            self._audio.renew(track)

    async def _open(self, muted: bool) -> "_ListenedTrack | None":
        opened = await self._open_track(muted)
        if opened.listener is None:
            await opened.audio.aclose()
            return None
        self._audio = opened.audio
        return _ListenedTrack(opened.audio, opened.listener, self._released)

    def _released(self) -> None:
        self._audio = None


class _ListenedTrack:
    def __init__(self, audio: TrackAudio | NoAudio, listener: Listener, on_released: Callable[[], None]) -> None:
        self.stream_id = listener.stream_id
        self._audio = audio
        self._listener = listener
        self._on_released = on_released

    def observe(self, observation: Observation) -> None:
        if isinstance(observation, Muted):
            self._listener.mute()
        else:
            self._listener.unmute()

    async def failed(self) -> str:
        lost = asyncio.create_task(self._listener.lost())
        over = asyncio.create_task(_over(self._listener))
        try:
            await asyncio.wait([lost, over], return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                return "its stream can no longer be written"
            await asyncio.wait([lost], timeout=_GONE_WITHIN_S)
            return f"its audio is over: {over.result()}"
        finally:
            lost.cancel()
            over.cancel()

    async def end(self, ended: Ended | None) -> None:
        self._audio.finish()
        await self._listener.close("worker_lost" if ended is None else ended.reason)

    async def release(self) -> None:
        self._on_released()
        await self._audio.aclose()


async def _over(listener: Listener) -> str:
    """Wait until the audio ends. Returns the error's type alone: its text may contain user content."""
    try:
        await listener.ended()
    except Exception as error:
        return type(error).__name__
    return "it ended"
