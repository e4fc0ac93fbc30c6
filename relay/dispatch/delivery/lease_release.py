"""Releases what is held: at the end, when idle, or when its endpoint is not sent to."""

import asyncio
import logging
from collections.abc import Collection

from relay.clock import Clock
from relay.dispatch.lanes.lane import HeldLane, Phase
from relay.dispatch.lanes.parked import HeldParked
from relay.dispatch.state import Holdings
from relay.dispatch.store import LaneStore
from relay.errors import OutboxError
from relay.outbox.records import Settlement

_AT_REST = (Phase.IDLE, Phase.READY)

log = logging.getLogger(__name__)


class Releasing:
    """Lanes are released with the cursor moved past events skipped at the end, parked events unchanged."""

    def __init__(self, store: LaneStore, holdings: Holdings, clock: Clock) -> None:
        self._store, self._holdings, self._clock = store, holdings, clock

    async def withdraw(self) -> None:
        """Release what waits for endpoints that are not sent to, or were not for a moment."""
        holdings = self._holdings
        having = {lane.destination for lane in holdings.lanes.values()}
        having |= {parked.destination for parked in holdings.parked.values()}
        left = {one for one in having if one in holdings.withdrawing or not one.usable}
        holdings.withdrawing.clear()
        if left:
            await self.release([lane for lane in holdings.lanes.values() if _rests(lane, left)])
            await self.release_parked([parked for parked in holdings.parked.values() if _rests(parked, left)])

    async def everything(self) -> None:
        """Release everything that is held, whatever it is busy with."""
        await self.release(list(self._holdings.lanes.values()))
        await self.release_parked(list(self._holdings.parked.values()))

    async def release(self, lanes: Collection[HeldLane]) -> None:
        """Release lanes."""
        if not lanes:
            return
        settlements: list[Settlement] = []
        for lane in lanes:
            if lane.pending is not None:
                settlements.append(lane.pending)
            elif lane.position > lane.settled:
                settlements.append(Settlement(lane.id, lane.fence, lane.position, lane.last_sent, lane.attempts))
            self._holdings.drop(lane)
        _warn_of(await asyncio.gather(*map(self._store.settle, settlements), return_exceptions=True))
        # a settlement with a retry time has already released its lane
        await self._store.release([lane.key() for lane in lanes if lane.pending is None or not lane.pending.next_at])

    async def release_parked(self, parked: Collection[HeldParked]) -> None:
        """Release parked events, with their due times unchanged."""
        now_ms = self._clock.now_ms()
        settlements = [one.pending or one.again(now_ms) for one in parked]
        for one in parked:
            self._holdings.drop_parked(one)
        _warn_of(await asyncio.gather(*map(self._store.settle_parked, settlements), return_exceptions=True))


def _rests(held: HeldLane | HeldParked, of: Collection[object]) -> bool:
    return held.destination in of and held.phase in _AT_REST


def _warn_of(results: Collection[BaseException | None]) -> None:
    for result in results:
        if isinstance(result, OutboxError):
            log.warning("what became of a lane cannot be written, and is found out again: %s", result)
        elif isinstance(result, BaseException):
            raise result
