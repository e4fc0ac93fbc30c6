"""An endpoint's route and connections under one configuration: what a reload replaces."""

import asyncio
from collections.abc import Awaitable

from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.route import Route
from relay.dispatch.http.outcome import Outcome
from relay.dispatch.http.transport import Headers, OpenTransport


class Connection:
    """An attempt ends on the connection on which it began.

    Raises ``ConfigError`` for an endpoint whose configuration cannot be used.
    """

    def __init__(self, endpoint: Endpoint, open_transport: OpenTransport) -> None:
        self.route = Route(endpoint)
        self._transport = open_transport(endpoint)
        self._in_flight = 0
        self._idle: asyncio.Event | None = None
        """Set when the last attempt is over, for the task that waits to close."""

    def __enter__(self) -> None:
        """Register an attempt: the connection is closed only after it is over."""
        self._in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1
        if self._idle and not self._in_flight:
            self._idle.set()

    def post(self, headers: Headers, body: bytes) -> Awaitable[Outcome]:
        """Make one attempt; see ``Transport``."""
        # not a coroutine: that would be one more to wake for every event
        return self._transport.post(self.route.url, headers, body, self.route.timeout)

    async def aclose(self) -> None:
        """Close the connections after the last attempt."""
        if self._in_flight:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self._transport.aclose()
