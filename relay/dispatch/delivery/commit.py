"""Commits decisions to the log, and continues each lane after its commit."""

import asyncio
import functools
import logging
from collections.abc import Awaitable

from relay.dispatch.delivery.reader import LaneReader
from relay.dispatch.guard import CallbackGuard
from relay.dispatch.lanes.lane import HeldLane
from relay.dispatch.lanes.parked import HeldParked
from relay.dispatch.metrics import DeliveryMetrics
from relay.dispatch.state import DispatcherState
from relay.dispatch.store import LaneStore
from relay.dispatch.work import Phase, Work
from relay.errors import Fenced, OutboxError
from relay.outbox.records import ParkedSettlement, Settlement

log = logging.getLogger(__name__)


class Commits:
    """A lane continues only after the log has committed the result of its head."""

    def __init__(
        self,
        store: LaneStore,
        state: DispatcherState,
        reader: LaneReader,
        guard: CallbackGuard,
        metrics: DeliveryMetrics,
    ) -> None:
        self._store, self._state, self._reader, self._metrics = store, state, reader, metrics
        self.outstanding: set[asyncio.Future[None]] = set()
        """Settlements that are being committed."""
        self._stopping = False
        self._on_committed = guard(self._committed)

    def stop(self) -> None:
        """Await every commit from now on, and those that are gathered already."""
        self._stopping = True
        self._store.hasten()

    def commit(self, work: Work, settlement: Settlement | ParkedSettlement) -> None:
        """Commit the result of the head, then continue. If nothing waits for the commit, it may be batched."""
        work.phase, work.pending = Phase.COMMITTING, settlement
        committing = asyncio.ensure_future(self._write(work, settlement))
        self.outstanding.add(committing)
        committing.add_done_callback(functools.partial(self._on_committed, work))

    def skip(self, work: Work) -> None:
        """Nothing that was read is to be sent: a lane reads on, and a parked event is finished."""
        if isinstance(work, HeldParked):
            self.commit(work, work.done())
        elif isinstance(work, HeldLane):
            work.phase = Phase.IDLE
            self._reader.schedule(work)
            self._state.progressed.set()

    def retry_refused(self) -> None:
        """Retry settlements that the log has refused."""
        for work in self._state.held():
            if work.phase is Phase.UNCOMMITTED and work.pending is not None:
                self.commit(work, work.pending)

    def _write(self, work: Work, settlement: Settlement | ParkedSettlement) -> Awaitable[None]:
        if isinstance(settlement, ParkedSettlement):
            return self._store.settle_parked(settlement)
        awaited = self._stopping or not settlement.goes_on or work.may_have_more()
        work.flush_commit = None if awaited else self._store.hasten
        return self._store.settle(settlement, awaited=awaited)

    def _committed(self, work: Work, commit: asyncio.Future[None]) -> None:
        self.outstanding.discard(commit)
        if work.phase is not Phase.COMMITTING:
            return  # dropped meanwhile: a newer claim of ours continues from the log's cursor
        work.flush_commit = None
        if commit.cancelled():
            work.phase = Phase.UNCOMMITTED
            return
        match commit.exception():
            case None:
                self._continue(work)
            case Fenced():
                self._metrics.fenced.inc()
                self._state.drop(work)
            case OutboxError() as error:
                log.error("a delivery cannot be settled: %s", error)
                work.phase = Phase.UNCOMMITTED
                self._state.progressed.set()
            case bug:
                raise bug

    def _continue(self, work: Work) -> None:
        """Continue a lane with its next event, unless it waits for a retry. A parked event is finished."""
        if not isinstance(work, HeldLane):
            self._state.drop(work)
            return
        if (next_at := work.committed()) is not None:
            self._state.wait_for_retry(work, next_at)
            return
        work.phase = Phase.IDLE
        self._reader.schedule(work)
        if work.phase is Phase.IDLE:
            self._state.progressed.set()
