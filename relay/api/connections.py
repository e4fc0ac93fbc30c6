"""Limits of the HTTP port: connections must not stop delivery."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 32
REQUEST_S = 5.0
"""Time for a connection to send its whole request."""
ANSWER_S = 30.0
"""Time for it to get and read the answer, unless the answer is a stream of events."""


class Connections:
    """The open connections, oldest first: at most ``most``. A further one closes the oldest, so that idle connections
    cannot block a health check."""

    def __init__(self, *, most: int = MOST_CONNECTIONS, request_s: float = REQUEST_S) -> None:
        self._most, self.request_s = most, request_s
        self._open: dict[BoundedProtocol, None] = {}

    def add(self, connection: "BoundedProtocol") -> None:
        self._open[connection] = None
        if len(self._open) > self._most:
            oldest = next((each for each in self._open if not each.streams), next(iter(self._open)))
            self.remove(oldest)
            oldest.transport.abort()

    @property
    def streams(self) -> int:
        """How many carry a stream of events."""
        return sum(each.streams for each in self._open)

    def remove(self, connection: "BoundedProtocol") -> None:
        self._open.pop(connection, None)


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with a deadline per connection. uvicorn's own options have none for the head of a request, and
    answer 503 to a connection too many, where this closes the oldest.

    The application finds it as ``scope["state"]["connection"]``.
    """

    streams = False
    """Whether it carries a stream of events, which has no deadline."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._deadline: asyncio.TimerHandle | None = None
        self._complete = False
        self.app_state = {"connection": self}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline(self._connections.request_s)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._clear_deadline()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if not self._complete and self.cycle is not None and not self.cycle.more_body:
            self._complete = True
            if not self.streams:
                self._set_deadline(ANSWER_S)

    def stream(self) -> None:
        """Lift the deadline: what is sent from now on is a stream of events."""
        self.streams = True
        self._clear_deadline()

    def _set_deadline(self, seconds: float) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
