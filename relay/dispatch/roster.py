"""Which endpoints the dispatcher sends to, and which of them are awake.

An endpoint of the configuration always is. One made over the API is woken when it has something due: until then it has
no connection, no worker and no timer, so that thousands of them cost nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

import httpx

from relay.clock import Clock
from relay.config.endpoint import Endpoint
from relay.dispatch.admission import Slots
from relay.dispatch.endpoint.runtime import Connection, EndpointRuntime
from relay.dispatch.http.transport import OpenTransport
from relay.dispatch.state import DispatcherState
from relay.dispatch.store import LaneStore
from relay.errors import ConfigError

IDLE_MS = 60_000
"""How long an endpoint stays awake with nothing to do."""

log = logging.getLogger(__name__)


class Roster:
    """Adds, changes and removes endpoints. No attempt is aborted, and nothing that is held is lost."""

    def __init__(
        self,
        store: LaneStore,
        state: DispatcherState,
        slots: Slots,
        clock: Clock,
        open_transport: OpenTransport,
        work: Callable[[EndpointRuntime], Coroutine[None, None, None]],
    ) -> None:
        """``work`` is one worker of an endpoint."""
        self._store, self._state, self._slots, self._clock = store, state, slots, clock
        self._open_transport, self._work = open_transport, work
        self._start: Callable[[Coroutine[None, None, None]], None] | None = None
        self._idle_since: dict[str, int] = {}
        self._closing: set[asyncio.Task[None]] = set()
        """Connections that were replaced, until their last attempt is over."""

    def begin(self, start: Callable[[Coroutine[None, None, None]], None]) -> None:
        """Start the workers of the endpoints, with ``start``, from now on."""
        self._start = start
        for endpoint in self._state.endpoints.values():
            self._staff(endpoint, endpoint.route.config.concurrency)

    def end(self) -> None:
        """Start no worker any more."""
        self._start = None

    async def aclose(self) -> None:
        """Close all connections after their last attempts."""
        closing = [endpoint.connection.aclose() for endpoint in self._state.endpoints.values()]
        await asyncio.gather(*closing, *self._closing)

    async def replace(self, endpoints: Sequence[Endpoint]) -> None:
        """Make these the configuration's endpoints; see :meth:`Dispatcher.reload`."""
        state, connections = self._state, dict[str, Connection]()
        try:
            for endpoint in endpoints:
                known = state.endpoints.get(endpoint.name)
                if known is None or known.route.config != endpoint:
                    connections[endpoint.name] = Connection(endpoint, self._open_transport)
            await self._store.sync_endpoints([endpoint.name for endpoint in endpoints])
        except BaseException:
            for connection in connections.values():
                await connection.aclose()
            raise
        for name in state.everywhere.keys() - {endpoint.name for endpoint in endpoints}:
            self._remove(state.remove(name))
        for endpoint in endpoints:
            state.dormant.pop(endpoint.name, None)
        for name, connection in connections.items():
            self._connect(name, connection)
        state.request_claim()

    def revise(self, changes: Mapping[str, Endpoint | None]) -> None:
        """Make, change or, with None, remove endpoints that were made over the API."""
        state = self._state
        for name, endpoint in changes.items():
            if name in state.everywhere:  # the configuration has the name
                continue
            known = state.endpoints.get(name)
            state.dormant.pop(name, None)
            if endpoint is None:
                if known is not None:
                    self._remove(state.remove(name))
            elif known is None:
                state.dormant[name] = endpoint
            elif known.route.config != endpoint:
                if (connection := self._open(endpoint)) is not None:
                    self._connect(name, connection)
                else:
                    self._remove(state.remove(name))
        state.forget_listed()
        state.request_claim()

    def awaken(self, names: Collection[str]) -> bool:
        """Wake those of these endpoints that are dormant; returns whether any was."""
        state, woken = self._state, False
        for name in names:
            if (endpoint := state.dormant.get(name)) is None:
                continue
            connection = self._open(endpoint)
            del state.dormant[name]
            if connection is not None:
                self._connect(name, connection)
                woken = True
        return woken

    def rest(self) -> None:
        """Put endpoints to sleep that have had nothing to do for a while, unless they fail or are disabled: what is
        known of that is kept here."""
        state, now_ms = self._state, self._clock.steady_ms()
        idle = state.idle_endpoints()
        for name in self._idle_since.keys() - idle:
            del self._idle_since[name]
        for name in idle:
            if now_ms - self._idle_since.setdefault(name, now_ms) >= IDLE_MS:
                del self._idle_since[name]
                endpoint = state.remove(name)
                state.dormant[name] = endpoint.route.config
                self._staff(endpoint, 0)
                self._close(endpoint.connection)

    def _open(self, endpoint: Endpoint) -> Connection | None:
        """None for an endpoint of the API that cannot be sent to: it must not end the delivery to all others."""
        try:
            return Connection(endpoint, self._open_transport)
        except (ConfigError, ValueError, httpx.InvalidURL) as error:
            # no traceback, and of an unexpected error its type only: its text may have a header's value
            what = error if isinstance(error, ConfigError) else type(error).__name__
            log.error("endpoint %s cannot be sent to: %s", endpoint.name, what, extra={"endpoint": endpoint.name})  # noqa: TRY400
            return None

    def _connect(self, name: str, connection: Connection) -> None:
        """Send to an endpoint over this connection from now on."""
        state = self._state
        if (known := state.endpoints.get(name)) is None:
            state.add(EndpointRuntime(connection, self._slots, self._clock))
        else:
            self._close(known.replace_connection(connection))
            state.add(known)
            for lane in state.lanes.values():
                if lane.endpoint is known:
                    lane.subscribe()
        self._staff(state.endpoints[name], connection.route.config.concurrency)

    def _remove(self, endpoint: EndpointRuntime) -> None:
        endpoint.deactivate()
        self._state.withdraw(endpoint)
        self._staff(endpoint, 0)
        self._close(endpoint.connection)

    def _staff(self, endpoint: EndpointRuntime, count: int) -> None:
        """Give an endpoint this many workers: one for each request that may be in flight."""
        if self._start is None:  # they are started when it runs
            return
        for _ in range(endpoint.workers, count):
            self._start(self._work(endpoint))
        for _ in range(count, endpoint.workers):
            endpoint.ready.put_nowait(None)
        endpoint.workers = count

    def _close(self, connection: Connection) -> None:
        closing = asyncio.create_task(connection.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
