"""An endpoint's route and connections, as one configuration has them: what a reload replaces."""

import asyncio

from relay.config.endpoint import Endpoint
from relay.dispatch.outcome import Outcome
from relay.dispatch.route import Route
from relay.dispatch.transport import Headers, OpenTransport


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

    async def post(self, headers: Headers, body: bytes) -> Outcome:
        """One attempt; see ``Transport``."""
        self._in_flight += 1
        try:
            return await self._transport.post(self.route.url, headers, body, self.route.timeout)
        finally:
            self._in_flight -= 1
            if self._idle and not self._in_flight:
                self._idle.set()

    async def aclose(self) -> None:
        """Close the connections, after the last attempt."""
        if self._in_flight:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self._transport.aclose()
