"""Commits decisions to the log and continues each lane after its commit, or releases what is held."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Collection

from relay.clock import Clock
from relay.dispatch.delivery.reader import LaneReader
from relay.dispatch.guard import CallbackGuard
from relay.dispatch.lanes import HeldLane, HeldParked
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
        if commit.cancelled():
            return  # the event loop ends
        if work.phase is not Phase.COMMITTING:
            return  # dropped meanwhile: a newer claim of ours continues from the log's cursor
        work.flush_commit = None
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
        self._state.progressed.set()


_RELEASABLE = (Phase.IDLE, Phase.READY)


class LeaseRelease:
    """Lanes are released with the cursor moved past events skipped at the end, parked events unchanged.

    What the log refuses is written with the next release: until its lease ends, no dispatcher would send it.
    """

    def __init__(self, store: LaneStore, state: DispatcherState, clock: Clock) -> None:
        self._store, self._state, self._clock = store, state, clock
        self._settlements: list[Settlement | ParkedSettlement] = []
        """To be written, then the lanes are to be released: (lane, fence)."""
        self._lanes: list[tuple[int, int]] = []
        self._releasing: set[asyncio.Future[None]] = set()
        """Releases that are being written."""

    async def withdraw(self) -> None:
        """Release what waits for endpoints that are not sent to, or were not for a moment."""
        state, held = self._state, self._state.held()
        having = {one.endpoint for one in held}
        left = {one for one in having if one in state.withdrawing or not one.usable}
        state.withdrawing.clear()
        if left:
            await self.release([one for one in held if one.endpoint in left and one.phase in _RELEASABLE])

    async def hand_over(self) -> None:
        """Release what is another dispatcher's share now, and is not being sent."""
        held = self._state.held()
        await self.release([one for one in held if one.phase in _RELEASABLE and not one.is_own()])

    async def everything(self) -> None:
        """Release everything that is held, whatever it is busy with; what is being released is then released, too."""
        await asyncio.gather(self.release(self._state.held()), *self._releasing)

    async def release(self, held: Collection[HeldLane | HeldParked]) -> None:
        """Release lanes and parked events, also where the caller is cancelled meanwhile: nothing else knows of them.

        Raises ``OutboxError`` if the log refuses any of it.
        """
        now_ms = self._clock.now_ms()
        settlements = [one.pending or one.release(now_ms) for one in held]
        self._settlements += [one for one in settlements if one is not None]
        self._lanes += [one.key() for one in held if isinstance(one, HeldLane) and not one.is_released_by_commit()]
        for one in held:  # before anything is awaited: a worker would take one of them and send it
            self._state.drop(one)
        if not self._settlements and not self._lanes:
            return
        releasing = asyncio.ensure_future(self._write_all())
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)
        await asyncio.shield(releasing)

    async def _write_all(self) -> None:
        settlements, self._settlements = self._settlements, []
        lanes, self._lanes = self._lanes, []
        refusals: list[OutboxError] = []
        results = await asyncio.gather(*map(self._write, settlements), return_exceptions=True)
        for settlement, result in zip(settlements, results, strict=True):
            if isinstance(result, Fenced):
                log.warning("a released lane was claimed by another dispatcher: its event may be sent again")
            elif isinstance(result, OutboxError):
                self._settlements.append(settlement)
                refusals.append(result)
            elif isinstance(result, BaseException):
                raise result
        if refusals:
            self._lanes += lanes  # once the log knows where they are
        elif lanes:
            try:
                await self._store.release(lanes)
            except OutboxError as error:
                self._lanes += lanes
                refusals.append(error)
        if refusals:
            raise refusals[0]

    def _write(self, settlement: Settlement | ParkedSettlement) -> Awaitable[None]:
        if isinstance(settlement, ParkedSettlement):
            return self._store.settle_parked(settlement)
        return self._store.settle(settlement)
