"""Supervises one track: opens its listener, reopens it after failures, and closes it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from livekit import rtc

from relay.capture.audio.source import Listener
from relay.capture.livekit.track_audio import NoAudio, TrackAudio
from relay.events.stream import StreamEnd

log = logging.getLogger(__name__)

_RETRY_S = (1.0, 1.0, 2.0, 5.0)
"""Delays before a track's listener is reopened; the last one repeats."""

_GONE_WITHIN_S = 1.0
"""The audio of a track that goes away may end before the room reports it."""

_STEADY_S = 10.0
"""After a listener has run for this long, the delays start over."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The result of opening a track: its audio, and its listener; None where another process listens."""

    audio: TrackAudio | NoAudio
    listener: Listener | None


class Hearing:
    """Opens a listener, passes mutes on in order, and closes it once, with the first reason given. A listener that
    fails, or whose audio ends while the track is there, is closed and replaced.

    ``open_track`` gets whether the track is muted. While it is refused (None: another process listens) or fails, it is
    retried: the other process may be dead and hold its claim only until that expires.
    """

    def __init__(self, track_sid: str, muted: bool, open_track: Callable[[bool], Awaitable[Opened]]) -> None:
        self._track_sid = track_sid
        self._muted = muted
        self._open_track = open_track
        self._listener: Listener | None = None
        self._audio: TrackAudio | NoAudio | None = None
        self._untold: list[bool] = []
        self._end: asyncio.Future[StreamEnd] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"hearing {track_sid}")

    @property
    def ended(self) -> bool:
        """Whether :meth:`end` was called; its listener may still be closing."""
        return self._end.done()

    @property
    def task(self) -> asyncio.Task[None]:
        """Wait until the listener has closed. Cancelling it abandons the close."""
        return self._task

    def mute(self, muted: bool) -> None:
        """The track was muted or unmuted. Queued for a listener that is not open yet."""
        if muted == self._muted:
            return
        self._muted = muted
        self._untold.append(muted)
        self._tell()

    def refuse(self) -> None:
        """The server withholds the track's audio."""
        if self._audio is not None:
            self._audio.refuse()

    def renew(self, track: rtc.Track) -> None:
        """The track was subscribed to again."""
        if self._audio is not None:
            self._audio.renew(track)

    def end(self, reason: StreamEnd) -> None:
        """Close the listener, at once. The first reason counts."""
        if not self._end.done():
            self._end.set_result(reason)

    def _tell(self) -> None:
        while self._listener is not None and self._untold:
            tell = self._listener.mute if self._untold.pop(0) else self._listener.unmute
            try:
                tell()
            except Exception:
                log.exception("The listener of track %s did not take a change of mute", self._track_sid)

    async def _run(self) -> None:
        tries = 0
        while not self._end.done():
            self._untold.clear()
            try:
                opened = await self._open_track(self._muted)
            except Exception:
                log.exception("Cannot begin to listen to track %s; trying again", self._track_sid)
            else:
                self._audio = opened.audio
                try:
                    if opened.listener is not None and await self._listened(opened.listener, opened.audio):
                        tries = 0
                finally:
                    self._audio = None
                    await opened.audio.aclose()
                if opened.listener is None and tries == 0:
                    log.info("Another process listens to track %s; asking again until none does", self._track_sid)
            await asyncio.wait([self._end], timeout=_RETRY_S[min(tries, len(_RETRY_S) - 1)])
            tries += 1

    async def _listened(self, listener: Listener, audio: TrackAudio | NoAudio) -> bool:
        """Whether it ran well for some time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._listener = listener
        self._tell()
        lost = asyncio.create_task(listener.lost())
        over = asyncio.create_task(_over(listener))
        try:
            either: list[asyncio.Future[Any]] = [self._end, lost, over]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                await asyncio.wait(either[:2], timeout=_GONE_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            over.cancel()
        self._listener = None
        audio.finish()
        if not self._end.done():
            why = f"its audio is over: {over.result()}" if over.done() else "its stream can no longer be written"
            which = {"stream_id": listener.stream_id}
            log.warning("Track %s is there and %s; listening to it again", self._track_sid, why, extra=which)
        try:
            await listener.close(self._end.result() if self._end.done() else "worker_lost")
        except Exception:
            log.exception("The listener of track %s did not close cleanly", self._track_sid)
        return loop.time() - began >= _STEADY_S


async def _over(listener: Listener) -> str:
    """Wait until the audio ends. Returns the error's type alone: its text may contain user content."""
    try:
        await listener.ended()
    except Exception as error:
        return type(error).__name__
    return "it ended"
