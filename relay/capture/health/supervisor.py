"""Keeps a track's stream open while the track is there."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from relay.capture.health.error_guard import ErrorGuard, place_of
from relay.capture.health.outages import Backoff
from relay.errors import RelayError
from relay.events.stream import StreamEnd
from relay.speech.observations import Ended, Muted, Observation, Unmuted
from relay.telemetry.log_dedup import Outage

log = logging.getLogger(__name__)

MOST_PENDING = 4096
"""Observations that wait for their stream; further ones are dropped."""

STEADY_S = 10.0
"""After a stream has been open for this long, the waits start over."""

RETRY_S = 1.0
"""The wait before a stream without audio of its own is opened again."""


class SupervisedStream(Protocol):
    """One open stream of a track."""

    @property
    def stream_id(self) -> str: ...

    def observe(self, observation: Observation) -> None: ...

    async def failed(self) -> str:
        """Wait, without limit, until the stream has to be replaced. Returns why, in words."""
        ...

    async def end(self, ended: Ended | None) -> None:
        """Write the stream to its end; None: the track is there, and another stream follows."""
        ...

    async def release(self) -> None:
        """Release its resources. Called in any case, and last."""
        ...


class StreamSupervisor:
    """Opens the stream of one track, passes observations on in order, and ends it once, with the first reason given.

    A stream that fails is replaced. ``open_stream`` gets whether the track is muted. While it is refused (None: another
    process holds the track) or fails, it is retried: the other process may be dead and hold its claim only until that
    expires. Observations of that time are dropped, as for a stream that begins later.
    """

    def __init__(
        self,
        track_sid: str,
        open_stream: Callable[[bool], Awaitable[SupervisedStream | None]],
        *,
        muted: bool,
        waits_s: Sequence[float],
    ) -> None:
        self._track_sid = track_sid
        self._open_stream = open_stream
        self._muted = self._opens_muted = muted
        self._backoff = Backoff(waits_s)
        self._pending: deque[Observation] = deque()
        self._observe: Callable[[Observation], None] | None = None
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(), name=f"stream of {track_sid}")
        """Wait until the stream has ended. Cancelling it abandons the end."""

    def report(self, observation: Observation) -> None:
        """Take an observation. It waits for a stream that is being opened. None are taken after :meth:`end`."""
        if self._ended.done():
            return
        if isinstance(observation, Muted | Unmuted):
            muted = isinstance(observation, Muted)
            if muted == self._muted:
                return
            self._muted = muted
        if len(self._pending) < MOST_PENDING:
            self._pending.append(observation)
        self._pass_on()

    def mute(self, muted: bool) -> None:
        """The track was muted or unmuted."""
        self.report(Muted() if muted else Unmuted())

    def end(self, reason: StreamEnd, *, heard_ms: int | None = None) -> None:
        """End the stream, at once. The first reason counts."""
        if not self._ended.done():
            self._ended.set_result(Ended(reason, heard_ms=heard_ms))

    def _pass_on(self) -> None:
        while self._observe is not None and self._pending:
            self._observe(self._pending.popleft())

    async def _run(self) -> None:
        refused = False
        outage = Outage(log, f"Track {self._track_sid} cannot be recorded; trying again", level=logging.ERROR)
        while not self._ended.done():
            try:
                stream = await self._open_stream(self._opens_muted)
            except Exception as error:
                outage.failed(error if isinstance(error, RelayError) else place_of(error))
            else:
                outage.over()
                if stream is not None:
                    await self._keep(stream)
                elif not refused:
                    log.info("Another process records track %s; asking again until none does", self._track_sid)
                refused = stream is None
            await asyncio.wait([self._ended], timeout=self._backoff.wait_s())
            self._pending.clear()
            self._opens_muted = self._muted

    async def _keep(self, stream: SupervisedStream) -> None:
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        self._observe = ErrorGuard()(stream.observe)
        self._pass_on()
        failed = asyncio.create_task(stream.failed(), name=f"failure of {stream.stream_id}")
        try:
            either: list[asyncio.Future[Any]] = [self._ended, failed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            self._observe = None
            await self._finish(stream, failed)
        finally:
            self._observe = None
            failed.cancel()
            await stream.release()
        if loop.time() - opened_at >= STEADY_S:
            self._backoff.reset()

    async def _finish(self, stream: SupervisedStream, failed: asyncio.Task[str]) -> None:
        ended = self._ended.result() if self._ended.done() else None
        try:
            if ended is None:
                which = {"stream_id": stream.stream_id}
                words = "Track %s is there and %s; recording it again"
                log.warning(words, self._track_sid, failed.result(), extra=which)
            await stream.end(ended)
        except Exception as error:
            log.error("The stream of track %s did not end cleanly: %s", self._track_sid, place_of(error))  # noqa: TRY400 - a message may quote a transcript
