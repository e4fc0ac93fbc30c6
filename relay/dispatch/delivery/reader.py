"""Reads the events that lanes need next, and queues the lanes for their endpoint's workers."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Sequence

from relay.dispatch.guard import CallbackGuard
from relay.dispatch.lanes import HeldLane
from relay.dispatch.state import DispatcherState
from relay.dispatch.store import LaneStore
from relay.dispatch.stream_tail import StreamTail
from relay.dispatch.work import Phase, Work
from relay.errors import OutboxError
from relay.outbox.records import Record

BATCH = 64
"""Events per read."""

log = logging.getLogger(__name__)

Read = asyncio.Future[list[Record]]


class LaneReader:
    """Moves a lane from idle to ready, with a read if one is needed."""

    def __init__(self, store: LaneStore, state: DispatcherState, guard: CallbackGuard) -> None:
        self._store, self._state = store, state
        self._rotation = 0
        self._on_forward, self._on_catch_up = guard(self._forwarded), guard(self._caught_up)

    def wake_lanes(self, stream: int, records: Sequence[Record] = ()) -> None:
        """This stream may have grown, by these records or others: check each of its idle lanes."""
        if (tail := self._state.tails.get(stream)) is not None:
            tail.take(records)
            self._schedule_lanes(tail)

    def retry_reads(self) -> None:
        """Retry every read that failed earlier."""
        for lane in list(self._state.lanes.values()):
            if lane.may_have_unread():
                self.schedule(lane)

    def schedule(self, lane: HeldLane) -> None:
        """Queue an idle lane if it has something to process, else read if there may be more."""
        if lane.phase is not Phase.IDLE:
            lane.expedite()
            return
        tail = lane.tail
        if lane.has_next():
            lane.phase = Phase.READY
            lane.endpoint.ready.put_nowait(lane)
        elif lane.behind_tail():
            lane.phase = Phase.READING
            read = _future(self._store.read(tail.number, lane.position, BATCH))
            read.add_done_callback(functools.partial(self._on_catch_up, lane))
        else:
            self._read_on(tail, lane.position)

    def catch_up_first(self, work: Work) -> bool:
        """Whether a lane's next event must wait until everything after it in the log was read.

        An interim must: a later one, or the final, may be there. The read is started, and the lane is idle until then.
        """
        if not isinstance(work, HeldLane) or not (work.tail.more or work.tail.reading):
            return False
        work.phase = Phase.IDLE
        self._read_on(work.tail, work.position)
        return True

    def _read_on(self, tail: StreamTail, position: int) -> None:
        if tail.reading or not tail.more:
            return
        if position > tail.end:
            tail.restart(position)
        tail.reading, tail.more = True, False
        read = _future(self._store.read(tail.number, tail.end, BATCH))
        read.add_done_callback(functools.partial(self._on_forward, tail))

    def _forwarded(self, tail: StreamTail, read: Read) -> None:
        tail.reading = False
        rows = _rows(read)
        if rows is None:
            tail.more = True
            self._state.progressed.set()
            return
        tail.more = tail.more or len(rows) == BATCH
        tail.extend(rows)
        self._schedule_lanes(tail)
        self._state.progressed.set()

    def _caught_up(self, lane: HeldLane, read: Read) -> None:
        if lane.phase is not Phase.READING:
            return
        lane.phase = Phase.IDLE
        rows = _rows(read)
        if rows is not None:
            lane.caught_up(rows)
            self.schedule(lane)
        self._state.progressed.set()

    def _schedule_lanes(self, tail: StreamTail) -> None:
        if self._state.tails.get(tail.number) is not tail:
            return  # its lanes were dropped during the read
        lanes = list(self._state.lanes_by_stream[tail.number].values())
        self._rotation += 1
        first = self._rotation % max(1, len(lanes))  # rotate, so that no endpoint is always the last one
        for lane in lanes[first:] + lanes[:first]:
            self.schedule(lane)


def _future(reading: Awaitable[list[Record]]) -> Read:
    return asyncio.ensure_future(reading)


def _rows(read: Read) -> list[Record] | None:
    """Return the records; None if the log cannot be read, which the next sweep retries."""
    if read.cancelled():
        return None
    try:
        return read.result()
    except OutboxError as error:
        log.error("the log cannot be read: %s", error)  # noqa: TRY400 - not a bug, no traceback
        return None
