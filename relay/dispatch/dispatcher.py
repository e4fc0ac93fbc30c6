"""The dispatcher: connects the parts, and runs them until it is stopped."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence

from relay.clock import Clock
from relay.config.endpoint import Endpoint
from relay.dispatch.admission.concurrency import Slots
from relay.dispatch.delivery.claims import Claims
from relay.dispatch.delivery.commit import Settling
from relay.dispatch.delivery.lease_release import Releasing
from relay.dispatch.delivery.reader import Feed
from relay.dispatch.delivery.worker import Sending
from relay.dispatch.endpoint.connection import Link
from relay.dispatch.endpoint.runtime import Destination
from relay.dispatch.endpoint_sync import Standing
from relay.dispatch.guard import Guard
from relay.dispatch.http.transport import OpenTransport
from relay.dispatch.maintenance import Upkeep
from relay.dispatch.state import Holdings
from relay.dispatch.stats import Stats
from relay.dispatch.store import LaneStore
from relay.errors import OutboxError
from relay.outbox.records import Growth

LINGER_MS = 10_000
"""How long a lane is held after its last event, so that the next event of a conversation needs no claim."""
CONCURRENCY = 256
"""Requests in flight at once, to all endpoints together."""
_SETTLE_SECONDS = 5.0

log = logging.getLogger(__name__)


class Dispatcher:
    """Sends the log's events to the endpoints: in order per lane, lanes in parallel, at least once.

    Must be created inside a running event loop. Raises ``ConfigError`` for an endpoint whose configuration cannot be
    used.
    """

    def __init__(
        self,
        store: LaneStore,
        endpoints: Sequence[Endpoint],
        *,
        clock: Clock,
        open_transport: OpenTransport,
        concurrency: int = CONCURRENCY,
        linger_ms: int = LINGER_MS,
        sweep_seconds: float = 1.0,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.stats = Stats()
        self._store, self._clock, self._open_transport = store, clock, open_transport
        self._slots = Slots(concurrency)
        self._holdings = Holdings(
            Destination(Link(endpoint, open_transport), self._slots, clock) for endpoint in endpoints
        )
        self._guard = guard = Guard()
        feed = Feed(store, self._holdings, guard)
        self._settling = Settling(store, self._holdings, feed, guard, self.stats)
        self._releasing = Releasing(store, self._holdings, clock)
        self._standing = Standing(store, self._holdings, clock)
        self._sending = Sending(self._holdings, feed, self._settling, clock=clock, stats=self.stats, dice=dice)
        self._upkeep = Upkeep(
            store,
            self._holdings,
            feed,
            self._settling,
            Claims(store, self._holdings, feed, guard, clock=clock, stats=self.stats),
            self._releasing,
            self._standing,
            clock=clock,
            linger_ms=linger_ms,
            sweep_seconds=sweep_seconds,
        )
        self._group: asyncio.TaskGroup | None = None
        self._duties: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain_until = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        """Connections that a reload has replaced, until their last attempt is over."""

    def ring(self, growth: Growth) -> None:
        """The log has grown. Called by the doorbell, on the event loop."""
        self._upkeep.ring(growth)

    async def run(self) -> None:
        """Send until ``stop`` has drained.

        Raises ``OutboxError`` if the log cannot be used at the start; later failures are retried by the sweep every
        second. A bug in any part ends the run and is raised as an ``ExceptionGroup``; leases are released first.
        """
        try:
            await self._store.sync_endpoints(list(self._holdings.destinations))
            await self._store.reclaim()
            await self._standing.look()
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._start(self._upkeep.run())
                self._start(self._guard.watch())
                for destination in self._holdings.destinations.values():
                    self._staff(destination, destination.route.endpoint.concurrency)
                await self._stopping.wait()
                await self._drain()
                for duty in list(self._duties):
                    duty.cancel()
        finally:
            self._group = None
            await self._leave()
            self._stopped.set()

    async def reload(self, endpoints: Sequence[Endpoint]) -> None:
        """Replace the endpoints. No attempt is aborted, and nothing that is held is lost.

        An attempt in flight ends under the configuration it began with; then the previous connections are closed.
        Raises ``RelayError`` if an endpoint or the log cannot be used; nothing has changed then.
        """
        destinations, links = self._holdings.destinations, dict[str, Link]()
        try:
            for endpoint in endpoints:
                known = destinations.get(endpoint.name)
                if known is None or known.route.endpoint != endpoint:
                    links[endpoint.name] = Link(endpoint, self._open_transport)
            await self._store.sync_endpoints([endpoint.name for endpoint in endpoints])
        except BaseException:
            for link in links.values():
                await link.aclose()
            raise
        for name in destinations.keys() - {endpoint.name for endpoint in endpoints}:
            self._remove(destinations.pop(name))
        for name, link in links.items():
            if name in destinations:
                self._relink(destinations[name], link)
            else:
                destinations[name] = Destination(link, self._slots, self._clock)
            self._staff(destinations[name], link.route.endpoint.concurrency)
        self._holdings.want()

    async def stop(self, grace: float) -> None:
        """Stop claiming, send what is held for at most ``grace`` seconds, and release the lanes.

        An attempt still in flight is then aborted; its event is sent again after the next start.
        """
        self._drain_until = asyncio.get_running_loop().time() + grace
        self._settling.stop()
        self._stopping.set()
        await self._stopped.wait()

    def _start(self, duty: Coroutine[None, None, None]) -> None:
        assert self._group is not None  # noqa: S101 - called while it runs
        task = self._group.create_task(duty)
        self._duties.add(task)
        task.add_done_callback(self._duties.discard)

    def _staff(self, destination: Destination, count: int) -> None:
        """Give an endpoint this many workers: one for each request that may be in flight."""
        if self._group is None:  # they are started when it runs
            return
        for _ in range(destination.workers, count):
            self._start(self._sending.work(destination))
        for _ in range(count, destination.workers):
            destination.ready.put_nowait(None)
        destination.workers = count

    def _remove(self, destination: Destination) -> None:
        destination.leave()
        self._holdings.withdraw(destination)
        self._staff(destination, 0)
        self._close(destination.link)

    def _relink(self, destination: Destination, link: Link) -> None:
        self._close(destination.relink(link))
        for lane in self._holdings.lanes.values():
            if lane.destination is destination:
                lane.subscribe()

    def _close(self, link: Link) -> None:
        closing = asyncio.create_task(link.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

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
        if self._settling.outstanding:
            await asyncio.wait(self._settling.outstanding, timeout=_SETTLE_SECONDS)
        try:
            await self._standing.note_health(now=True)
            await self._releasing.everything()
        except OutboxError as error:
            log.warning("lanes cannot be given back, their leases run out by themselves: %s", error)
        links = [destination.link.aclose() for destination in self._holdings.destinations.values()]
        await asyncio.gather(*links, *self._closing)
