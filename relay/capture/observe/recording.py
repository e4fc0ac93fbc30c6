"""Records one track from the reports of an agent's session elsewhere, without its audio."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Protocol

from relay.clock import Clock
from relay.events.envelope import ParticipantRef, RoomRef
from relay.events.stream import StreamEnd
from relay.speech.observations import Ended, Listening, Muted, Observation, Unmuted

log = logging.getLogger(__name__)

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class ObservedTrack:
    """The participant that the session listens to. ``joined_at`` is epoch milliseconds."""

    room: RoomRef
    participant: ParticipantRef
    sid: str
    source: str
    joined_at: int | None
    muted: bool


class Record(Protocol):
    """Takes the observations of one stream."""

    def observe(self, observation: Observation) -> None: ...

    async def lost(self) -> None:
        """Wait until the stream can no longer be written."""
        ...

    async def close(self) -> None:
        """Returns when the last event is committed, or known to be lost."""
        ...


class OpenRecord(Protocol):
    """Opens the record of a track. None: another process records it."""

    async def __call__(self, track: ObservedTrack) -> Record | None: ...


class ObservedStream:
    """Passes observations to a track's record, from construction until :meth:`end`. While there is no record (another
    process holds the track, or the log fails) it retries, and drops the observations of that time, as for a stream that
    begins later."""

    def __init__(self, track: ObservedTrack, open_record: OpenRecord, clock: Clock) -> None:
        self._track = track
        self._open_record = open_record
        self._clock = clock
        self._muted = track.muted
        self._record: Record | None = None
        self._untold: list[Observation] = []
        self._end: asyncio.Future[StreamEnd] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(), name=f"observed {track.sid}")
        """Wait until the record is closed."""

    def tell(self, observation: Observation) -> None:
        """Take an observation."""
        if not self._end.done():
            self._untold.append(observation)
            self._tell()

    def mute(self, muted: bool) -> None:
        """The track was muted or unmuted."""
        if muted != self._muted:
            self._muted = muted
            self.tell(Muted() if muted else Unmuted())

    def end(self, reason: StreamEnd) -> None:
        """Take no more observations. The first reason counts."""
        if not self._end.done():
            self._end.set_result(reason)

    def _tell(self) -> None:
        while self._record is not None and self._untold:
            self._record.observe(self._untold.pop(0))

    async def _run(self) -> None:
        refused = False
        while not self._end.done():
            listening = Listening(self._clock.now_ms(), None, self._track.joined_at, muted=self._muted)
            try:
                record = await self._open_record(self._track)
            except Exception:
                log.exception("Track %s cannot be recorded; trying again", self._track.sid)
            else:
                if record is not None:
                    await self._tell_all(record, listening)
                elif not refused:
                    log.info("Another process records track %s; asking again until none does", self._track.sid)
                refused = record is None
            await asyncio.wait([self._end], timeout=RETRY_S)
            self._untold.clear()

    async def _tell_all(self, record: Record, listening: Listening) -> None:
        record.observe(listening)
        self._record = record
        self._tell()
        lost = asyncio.create_task(record.lost())
        try:
            either: list[asyncio.Future[Any]] = [self._end, lost]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            self._record = None
        if self._end.done():
            record.observe(Ended(self._end.result(), heard_ms=None))
        else:
            log.warning("Track %s can no longer be recorded as it was; recording it again", self._track.sid)
        await record.close()
