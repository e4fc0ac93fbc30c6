"""The dispatcher: connects the parts, and runs them until it is stopped."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

from relay.clock import Clock
from relay.config.endpoint import Endpoint
from relay.dispatch.admission import Slots
from relay.dispatch.delivery.claims import LeaseClaims
from relay.dispatch.delivery.commit import Commits, LeaseRelease
from relay.dispatch.delivery.reader import LaneReader
from relay.dispatch.delivery.worker import AttemptTraces, DeliveryWorker
from relay.dispatch.endpoint.runtime import Connection, EndpointRuntime
from relay.dispatch.endpoint_sync import EndpointSync
from relay.dispatch.guard import CallbackGuard
from relay.dispatch.http.transport import OpenTransport
from relay.dispatch.maintenance import Maintenance
from relay.dispatch.metrics import DeliveryMetrics
from relay.dispatch.roster import Roster
from relay.dispatch.share import DispatcherFleet, NoFleet, Shares
from relay.dispatch.state import DispatcherState
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
        metrics: DeliveryMetrics | None = None,
        traces: AttemptTraces | None = None,
        fleet: DispatcherFleet | None = None,
    ) -> None:
        """``fleet``: the dispatchers that share the log; None if there are no others."""
        fleet = fleet or NoFleet()
        self.metrics = metrics = metrics or DeliveryMetrics()
        self._store = store
        slots = Slots(concurrency)
        self._state = DispatcherState(
            (EndpointRuntime(Connection(endpoint, open_transport), slots, clock) for endpoint in endpoints),
            Shares(fleet),
        )
        metrics.breakers_open = self._breakers_open
        self._guard = guard = CallbackGuard()
        reader = LaneReader(store, self._state, guard)
        self._commits = Commits(store, self._state, reader, guard, metrics)
        self._lease_release = LeaseRelease(store, self._state, clock)
        self._endpoint_sync = EndpointSync(store, self._state, clock)
        self._worker = DeliveryWorker(
            self._state, reader, self._commits, clock=clock, metrics=metrics, dice=dice, traces=traces
        )
        self._roster = Roster(store, self._state, slots, clock, open_transport, self._worker.run)
        claims = LeaseClaims(store, self._state, reader, guard, clock=clock, metrics=metrics, awaken=self._awaken)
        self._maintenance = Maintenance(
            store,
            self._state,
            reader,
            self._commits,
            claims,
            self._lease_release,
            self._endpoint_sync,
            rest=self._roster.rest,
            ended=fleet.ended,
            clock=clock,
            linger_ms=linger_ms,
            sweep_seconds=sweep_seconds,
        )
        self._group: asyncio.TaskGroup | None = None
        self._duties: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain_until = 0.0

    @property
    def lanes_held(self) -> int:
        """How many lanes this dispatcher has leased."""
        return len(self._state.lanes)

    def problem(self) -> str | None:
        """Why nothing new is delivered, and what to do; None while it works."""
        return self._maintenance.problem()

    def ring(self, growth: Growth) -> None:
        """The log has grown. Called by the doorbell, on the event loop."""
        self._maintenance.ring(growth)

    async def run(self) -> None:
        """Send until ``stop`` has drained.

        Raises ``OutboxError`` if the log cannot be used at the start; later failures are retried by the sweep every
        second. A bug in any part ends the run and is raised as an ``ExceptionGroup``; leases are released first.
        """
        try:
            await self._store.sync_endpoints(list(self._state.everywhere))
            await self._store.reclaim()
            await self._endpoint_sync.poll()
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._start(self._maintenance.run())
                self._start(self._guard.watch())
                self._roster.begin(self._start)
                await self._stopping.wait()
                await self._drain()
                for duty in list(self._duties):
                    duty.cancel()
        finally:
            self._group = None
            self._roster.end()
            await self._leave()
            self._stopped.set()

    async def reload(self, endpoints: Sequence[Endpoint]) -> None:
        """Replace the configuration's endpoints. No attempt is aborted, and nothing that is held is lost.

        An attempt in flight ends under the configuration it began with; then the previous connections are closed.
        Raises ``RelayError`` if an endpoint or the log cannot be used; nothing has changed then.
        """
        await self._roster.replace(endpoints)

    def revise(self, changes: Mapping[str, Endpoint | None]) -> None:
        """Add, change or (with None) remove endpoints that were made over the API and are in the log.

        As ``reload`` does it. Each is sent to once it has something due; one whose name the configuration has is left
        out.
        """
        self._roster.revise(changes)

    async def stop(self, grace: float) -> None:
        """Stop claiming, send what is held for at most ``grace`` seconds, and release the lanes.

        Where other dispatchers share the log, only what is in flight is waited for: they send the rest. An attempt
        still in flight is then aborted; its event is sent again after the next start.
        """
        self._drain_until = asyncio.get_running_loop().time() + grace
        self._commits.stop()
        self._stopping.set()
        await self._stopped.wait()

    def _breakers_open(self) -> dict[str, float]:
        return {name: float(endpoint.admission.probing) for name, endpoint in self._state.endpoints.items()}

    async def _awaken(self, names: Collection[str]) -> None:
        if self._roster.awaken([name for name in names if self._state.is_mine(name)]):
            await self._endpoint_sync.poll()  # before their first attempts: what the log knows of their health

    def _start(self, duty: Coroutine[None, None, None]) -> None:
        assert self._group is not None  # noqa: S101 - called while it runs
        task = self._group.create_task(duty)
        self._duties.add(task)
        task.add_done_callback(self._duties.discard)

    async def _drain(self) -> None:
        if self._state.shares.leave():
            # others go on with it: lanes of conversations may have a next event without end
            self._state.take_shares()
            for endpoint in self._state.endpoints.values():
                self._state.withdraw(endpoint)
        try:
            async with asyncio.timeout_at(self._drain_until):
                await self._maintenance.finish_claiming()
                while self._state.busy():
                    self._state.progressed.clear()
                    await self._state.progressed.wait()
        except TimeoutError:
            log.warning("the grace is over; what is left is sent after the next start")

    async def _leave(self) -> None:
        if self._commits.outstanding:
            await asyncio.wait(self._commits.outstanding, timeout=_SETTLE_SECONDS)
        try:
            await self._endpoint_sync.note_health(now=True)
            await self._lease_release.everything()
        except OutboxError as error:
            log.warning("lanes cannot be released; their leases expire: %s", error)
        await self._roster.aclose()
