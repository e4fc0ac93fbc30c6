"""Commits decisions to the log, and continues each lane after its commit."""

import asyncio
import functools
import logging
from collections.abc import Awaitable

from relay.dispatch.delivery.reader import Feed
from relay.dispatch.guard import Guard
from relay.dispatch.lanes.lane import HeldLane, Phase
from relay.dispatch.lanes.parked import HeldParked
from relay.dispatch.state import Holdings
from relay.dispatch.stats import Stats
from relay.dispatch.store import LaneStore
from relay.errors import Fenced, OutboxError
from relay.outbox.records import ParkedSettlement, Settlement

log = logging.getLogger(__name__)


class Settling:
    """A lane continues only after the log has committed the result of its head."""

    def __init__(self, store: LaneStore, holdings: Holdings, feed: Feed, guard: Guard, stats: Stats) -> None:
        self._store, self._holdings, self._feed, self._stats = store, holdings, feed, stats
        self.outstanding: set[asyncio.Future[None]] = set()
        """Settlements that are being committed."""
        self._stopping = False
        self._on_settled, self._on_parked_settled = guard(self._settled), guard(self._parked_settled)

    def stop(self) -> None:
        """Await every commit from now on, and those that are gathered already."""
        self._stopping = True
        self._store.hasten()

    def settle(self, lane: HeldLane, settlement: Settlement) -> None:
        """Commit it, then continue the lane. If nothing waits for the commit, it may be batched."""
        lane.phase, lane.pending = Phase.SETTLING, settlement
        awaited = self._stopping or not settlement.goes_on or lane.may_go_on()
        lane.flush_commit = None if awaited else self._store.hasten
        settled = self._under_way(self._store.settle(settlement, awaited=awaited))
        settled.add_done_callback(functools.partial(self._on_settled, lane))

    def settle_parked(self, parked: HeldParked, settlement: ParkedSettlement) -> None:
        """Commit it, then release the event."""
        parked.phase, parked.pending = Phase.SETTLING, settlement
        settled = self._under_way(self._store.settle_parked(settlement))
        settled.add_done_callback(functools.partial(self._on_parked_settled, parked))

    def again(self) -> None:
        """Retry settlements that the log has refused."""
        for lane in list(self._holdings.lanes.values()):
            if lane.phase is Phase.UNSETTLED and lane.pending is not None:
                self.settle(lane, lane.pending)
        for parked in list(self._holdings.parked.values()):
            if parked.phase is Phase.UNSETTLED and parked.pending is not None:
                self.settle_parked(parked, parked.pending)

    def _under_way(self, settling: Awaitable[None]) -> asyncio.Future[None]:
        settled = asyncio.ensure_future(settling)
        self.outstanding.add(settled)
        return settled

    def _settled(self, lane: HeldLane, settled: asyncio.Future[None]) -> None:
        self.outstanding.discard(settled)
        if lane.phase is not Phase.SETTLING:
            return  # dropped meanwhile: a newer claim of ours continues from the log's cursor
        lane.flush_commit, pending = None, lane.pending
        assert pending is not None  # noqa: S101 - guaranteed by SETTLING
        if settled.cancelled():
            lane.phase = Phase.UNSETTLED
            return
        match settled.exception():
            case None:
                lane.settled, lane.pending = pending.cursor, None
                if pending.next_at is not None:
                    self._holdings.rest(lane, pending.next_at)
                    return
                lane.phase = Phase.IDLE
                self._feed.kick(lane)
                if lane.phase is Phase.IDLE:
                    self._holdings.stirred.set()
            case Fenced():
                self._stats.fenced += 1
                self._holdings.drop(lane)
            case OutboxError() as error:
                log.error("a delivery cannot be settled: %s", error)
                lane.phase = Phase.UNSETTLED
                self._holdings.stirred.set()
            case bug:
                raise bug

    def _parked_settled(self, parked: HeldParked, settled: asyncio.Future[None]) -> None:
        self.outstanding.discard(settled)
        if parked.phase is not Phase.SETTLING:
            return
        if settled.cancelled():
            parked.phase = Phase.UNSETTLED
            return
        match settled.exception():
            case None:
                self._holdings.drop_parked(parked)
            case Fenced():
                self._stats.fenced += 1
                self._holdings.drop_parked(parked)
            case OutboxError() as error:
                log.error("a delivery cannot be settled: %s", error)
                parked.phase = Phase.UNSETTLED
                self._holdings.stirred.set()
            case bug:
                raise bug
