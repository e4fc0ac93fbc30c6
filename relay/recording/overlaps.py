"""Records overlapping speech from a job's streams to the rooms' own streams."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from relay.capture.health.error_guard import place_of
from relay.capture.vad.provider import min_silence_s
from relay.clock import Clock
from relay.config.capture import Capture
from relay.config.models import Speech
from relay.errors import OutboxError, RelayError, StreamTaken
from relay.events.envelope import RoomEvent, RoomRef, StreamEvent
from relay.events.stream import StreamEnded, StreamStarted
from relay.ids import new_id
from relay.outbox.records import NewStream
from relay.speech.overlap import OverlapSettings, OverlapTracker

logger = logging.getLogger(__name__)

_MARGIN_S = 0.3
"""Added to the silence that voice activity detection waits for: audio arrives in frames, and inferences are queued."""
_TRANSCRIBED_S = 2.0
"""Without voice activity detection, speech ends with its final, or about this long after its last word for a model."""

_RETRY_S = 1.0
_HELD_AT_MOST_S = 30.0
"""How long another writer may hold a room's stream. A dead writer's claim expires within seconds; a writer that holds
it for longer is alive: two agents listen in the room, and the other one writes."""


class RoomLog(Protocol):
    """A room's stream. Both methods raise ``OutboxError`` where it cannot be written."""

    def append(self, events: Sequence[RoomEvent]) -> asyncio.Future[None]: ...

    def abandon(self) -> asyncio.Future[None]:
        """Close it in its current state."""
        ...


class RoomStreams(Protocol):
    """Opens rooms' streams. Raises ``StreamTaken`` while another writer holds the room's stream."""

    async def open_stream(self, stream: NewStream) -> RoomLog: ...


class Overlaps:
    """Watches a job's streams and records which participants speak at once, per room sid.

    A room's own stream is opened at its first overlap, so that a room without overlaps costs nothing. It is closed when
    the room's last track ends, and holds ``overlap.*`` events only. ``take`` never waits. A permanent log failure is
    logged, and the room's overlaps are no longer recorded. Lives on one event loop.
    """

    def __init__(self, streams: RoomStreams, clock: Clock, *, capture: Capture, speech: Speech) -> None:
        self._streams = streams
        self._clock = clock
        has_vad = capture.vad.provider != "none" and capture.realtime is None
        delay_s = min_silence_s(capture.vad) + _MARGIN_S if has_vad else _TRANSCRIBED_S
        self._settings = OverlapSettings(
            min_ms=round(speech.overlap_min.total_seconds() * 1000),
            lag_ms=round((delay_s + speech.merge_gap.total_seconds()) * 1000),
        )
        self._rooms: dict[str, _Room] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, event: StreamEvent) -> None:
        """Take an event of a stream, in the stream's order."""
        sid = event.room.sid
        room = self._rooms.get(sid)
        if room is None:
            if not isinstance(event, StreamStarted):
                return
            room = self._rooms[sid] = _Room(event.room, self._streams, self._clock, self._settings)
        if room.take(event):
            del self._rooms[sid]
            self._finish(room)

    async def aclose(self, *, within: float = 2.0) -> None:
        """End the overlaps that are in progress and close the rooms' streams, within this many seconds."""
        for room in self._rooms.values():
            self._finish(room)
        self._rooms.clear()
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=within)
            if late:
                logger.warning("the last overlaps in %d rooms could not be recorded within %g s", len(late), within)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _finish(self, room: "_Room") -> None:
        task = room.finish()
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Room:
    """One room: its tracker, the tracker's clock, and the task that writes."""

    def __init__(self, room: RoomRef, streams: RoomStreams, clock: Clock, settings: OverlapSettings) -> None:
        self._room = room
        self._streams = streams
        self._clock = clock
        self._id = new_id("str")
        self._tracker = OverlapTracker(room, self._id, settings, partial(new_id, "ovl"))
        self._listening: set[str] = set()
        self._unwritten: list[RoomEvent] = []
        self._more = asyncio.Event()
        self._finishing = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing = asyncio.create_task(self._write(), name="overlaps")

    def take(self, event: StreamEvent) -> bool:
        """Whether the room has no stream left."""
        if isinstance(event, StreamStarted):
            self._listening.add(event.stream.id)
        elif isinstance(event, StreamEnded):
            self._listening.discard(event.stream.id)
        now = self._clock.now_ms()
        self._written(self._tracker.observe(event, now, self._clock.steady_ms()), now)
        return not self._listening

    def finish(self) -> asyncio.Task[None]:
        """Take no more events. The task ends when all is written and the room's stream is closed."""
        self._finishing = True
        now = self._clock.now_ms()
        self._written(self._tracker.close(now), now)
        self._more.set()
        return self._writing

    def _tick(self) -> None:
        now = self._clock.now_ms()
        self._written(self._tracker.tick(now, self._clock.steady_ms()), now)

    def _written(self, events: list[RoomEvent], now: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if (deadline := self._tracker.deadline) is not None:
            wait_ms = max(deadline - now, 0)
            self._timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._tick)
        if events and not self._writing.done():
            self._unwritten += events
            self._more.set()

    async def _write(self) -> None:
        try:
            log: RoomLog | None = None
            while self._unwritten or not self._finishing:
                if not self._unwritten:
                    self._more.clear()
                    await self._more.wait()
                    continue
                log = log or await self._opened()
                events, self._unwritten = self._unwritten, []
                await log.append(events)
            if log is not None:
                await log.abandon()
        except StreamTaken:
            logger.info("another process records overlapping speech in room %s", self._room.sid)
        except Exception as error:
            why = str(error) if isinstance(error, RelayError) else place_of(error)
            logger.error("overlapping speech in room %s can no longer be recorded: %s", self._room.sid, why)  # noqa: TRY400 - a message may quote what was said

    async def _opened(self) -> RoomLog:
        new = NewStream(id=self._id, room_sid=self._room.sid, room=self._room.name, track_sid="", participant="")
        deadline = asyncio.get_running_loop().time() + _HELD_AT_MOST_S
        while True:
            try:
                return await self._streams.open_stream(new)
            except OutboxError:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            await asyncio.sleep(_RETRY_S)
