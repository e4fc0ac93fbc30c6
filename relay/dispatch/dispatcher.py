"""The dispatcher: wires the parts, and runs them until it is told to stop."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Sequence

from relay.clock import Clock
from relay.config.models import Endpoint
from relay.dispatch.feed import Feed
from relay.dispatch.guard import Guard
from relay.dispatch.holdings import Holdings
from relay.dispatch.leases import lease_ms_for
from relay.dispatch.route import Route
from relay.dispatch.sending import Sending
from relay.dispatch.stats import Stats
from relay.dispatch.store import LaneStore
from relay.dispatch.transport import Transport
from relay.dispatch.upkeep import Upkeep
from relay.errors import OutboxError

LINGER_MS = 10_000
"""How long a lane is held after its last event: the next one of a conversation then needs no claim."""
_SETTLE_SECONDS = 5.0

log = logging.getLogger(__name__)


class Dispatcher:
    """Sends what the log holds to the endpoints: in order per lane, lanes side by side, at least once.

    Must be made inside a running event loop. Raises ``ConfigError`` for an endpoint that cannot be sent to as it is.
    """

    def __init__(
        self,
        store: LaneStore,
        endpoints: Sequence[Endpoint],
        *,
        clock: Clock,
        transport: Transport,
        linger_ms: int = LINGER_MS,
        sweep_seconds: float = 1.0,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.stats = Stats()
        self._store = store
        self._routes = {endpoint.name: Route(endpoint) for endpoint in endpoints}
        self._holdings = Holdings(self._routes)
        self._guard = Guard()
        self._feed = Feed(store, self._holdings, self._guard)
        self._sending = Sending(
            store, self._holdings, self._feed, transport, self._guard, clock=clock, stats=self.stats, dice=dice
        )
        self._upkeep = Upkeep(
            store,
            self._holdings,
            self._feed,
            self._sending,
            self._guard,
            clock=clock,
            stats=self.stats,
            lease_ms=lease_ms_for(max((route.timeout for route in self._routes.values()), default=0)),
            linger_ms=linger_ms,
            sweep_seconds=sweep_seconds,
        )
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain_until = 0.0

    def ring(self, streams: Collection[int]) -> None:
        """The log has more on these streams (by its own numbers). Called by the doorbell, on the event loop."""
        self._upkeep.ring(streams)

    async def run(self) -> None:
        """Send until ``stop`` has drained.

        Raises ``OutboxError`` when the log cannot be used at the start; later the sweep tries again every second. A
        bug in any part ends the run and comes out as an ``ExceptionGroup``; leases are given back first.
        """
        try:
            await self._store.sync_endpoints(list(self._routes))
            await self._store.reclaim()
            async with asyncio.TaskGroup() as group:
                duties = [group.create_task(self._upkeep.run()), group.create_task(self._guard.watch())]
                for route in self._routes.values():
                    duties += [group.create_task(self._sending.work(route)) for _ in range(route.concurrency)]
                await self._stopping.wait()
                await self._drain()
                for duty in duties:
                    duty.cancel()
        finally:
            await self._leave()
            self._stopped.set()

    async def stop(self, grace: float) -> None:
        """Stop claiming, send what is held for at most ``grace`` seconds, give the lanes back; done when that is done.

        An attempt that is still under way then is broken off; its event is sent again after the next start.
        """
        self._drain_until = asyncio.get_running_loop().time() + grace
        self._stopping.set()
        await self._stopped.wait()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout_at(self._drain_until):
                await self._upkeep.finish_claiming()
                while self._holdings.busy():
                    self._holdings.stirred.clear()
                    await self._holdings.stirred.wait()
        except TimeoutError:
            log.warning("the grace is over; what is left is sent after the next start")

    async def _leave(self) -> None:
        if self._sending.outstanding:
            await asyncio.wait(self._sending.outstanding, timeout=_SETTLE_SECONDS)
        try:
            await self._upkeep.release(list(self._holdings.lanes.values()))
        except OutboxError as error:
            log.warning("lanes cannot be given back, their leases run out by themselves: %s", error)
