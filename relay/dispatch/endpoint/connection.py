"""An endpoint's route and connections, as one configuration has them: what a reload replaces."""

import asyncio
from collections.abc import Awaitable

from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.route import Route
from relay.dispatch.http.outcome import Outcome
from relay.dispatch.http.transport import Headers, OpenTransport


class Link:
    """Attempts that have begun end on the link they began on.

    Raises ``ConfigError`` for an endpoint that cannot be sent to as it is.
    """

    def __init__(self, endpoint: Endpoint, open_transport: OpenTransport) -> None:
        self.route = Route(endpoint)
        self._transport = open_transport(endpoint)
        self._in_flight = 0
        self._idle: asyncio.Event | None = None
        """Set when the last attempt is over, for whoever waits to close."""

    def __enter__(self) -> None:
        """An attempt begins on it: it is closed only after that is over."""
        self._in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1
        if self._idle and not self._in_flight:
            self._idle.set()

    def post(self, headers: Headers, body: bytes) -> Awaitable[Outcome]:
        """One attempt; see ``Transport``."""
        # no coroutine of its own: it would be one more to wake for every event
        return self._transport.post(self.route.url, headers, body, self.route.timeout)

    async def aclose(self) -> None:
        """Close the connections, after the last attempt."""
        if self._in_flight:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self._transport.aclose()
