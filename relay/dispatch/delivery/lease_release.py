"""Releases what is held: at the end, when idle, or when its endpoint is not sent to."""

import asyncio
import logging
from collections.abc import Awaitable, Collection

from relay.clock import Clock
from relay.dispatch.lanes.lane import HeldLane
from relay.dispatch.lanes.parked import HeldParked
from relay.dispatch.state import DispatcherState
from relay.dispatch.store import LaneStore
from relay.dispatch.work import Phase
from relay.errors import OutboxError
from relay.outbox.records import ParkedSettlement, Settlement

_RELEASABLE = (Phase.IDLE, Phase.READY)

log = logging.getLogger(__name__)


class LeaseRelease:
    """Lanes are released with the cursor moved past events skipped at the end, parked events unchanged."""

    def __init__(self, store: LaneStore, state: DispatcherState, clock: Clock) -> None:
        self._store, self._state, self._clock = store, state, clock

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
        """Release everything that is held, whatever it is busy with."""
        await self.release(self._state.held())

    async def release(self, held: Collection[HeldLane | HeldParked]) -> None:
        """Release lanes and parked events."""
        if not held:
            return
        now_ms = self._clock.now_ms()
        settlements = [one.pending or one.release(now_ms) for one in held]
        lanes = [one.key() for one in held if isinstance(one, HeldLane) and not one.is_released_by_commit()]
        for one in held:
            self._state.drop(one)
        writes = [self._write(settlement) for settlement in settlements if settlement is not None]
        _warn_of(await asyncio.gather(*writes, return_exceptions=True))
        if lanes:
            await self._store.release(lanes)

    def _write(self, settlement: Settlement | ParkedSettlement) -> Awaitable[None]:
        if isinstance(settlement, ParkedSettlement):
            return self._store.settle_parked(settlement)
        return self._store.settle(settlement)


def _warn_of(results: Collection[BaseException | None]) -> None:
    for result in results:
        if isinstance(result, OutboxError):
            log.warning("what became of a lane cannot be written, and is found out again: %s", result)
        elif isinstance(result, BaseException):
            raise result
