"""The HTTP port: health and metrics, and with the section ``api`` the HTTP API. Its connections are limited."""

import asyncio
import errno
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from fastapi import APIRouter
from uvicorn.protocols.http.h11_impl import H11Protocol

from relay.api.access import Gate
from relay.api.app import application
from relay.api.guard import Guard
from relay.api.health import Readiness, router
from relay.api.routes import livekit
from relay.config.api import ListenAddress
from relay.config.fields import split_address
from relay.errors import ConfigError
from relay.telemetry.metrics import Metrics

# Limits: connections must not stop delivery.

MOST_CONNECTIONS = 32
REQUEST_S = 5.0
"""Time for a connection to send its whole request."""
ANSWER_S = 30.0
"""Time for it to get and read the answer, unless the answer is a stream of events."""


class Connections:
    """The open connections, oldest first: at most ``MOST_CONNECTIONS``. A further one closes the oldest, so that idle
    connections cannot block a health check."""

    def __init__(self, *, request_s: float) -> None:
        self.request_s = request_s
        self._open: dict[BoundedProtocol, None] = {}

    def add(self, connection: "BoundedProtocol") -> None:
        self._open[connection] = None
        if len(self._open) > MOST_CONNECTIONS:
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


class HttpServer:
    """Serves what :mod:`relay.api.health` has, and the ``routers`` of /v1. Each connection serves one request."""

    def __init__(
        self,
        at: ListenAddress,
        readiness: Readiness,
        metrics: Metrics | None = None,
        routers: Collection[APIRouter] = (),
        *,
        request_s: float = REQUEST_S,
    ) -> None:
        self._at = at
        self._host, self._port = split_address(at.address)
        app = application([router(readiness, metrics or Metrics(())), *routers], documented=at.api)
        guard = Guard(
            app,
            Gate(at.tokens, demands_token=at.demands_token) if at.api else None,
            demands_token=at.demands_token,
            hosts={name.lower() for name in (self._host, *at.allowed_hosts)},
            signed={livekit.PATH: livekit.MOST_BODY} if at.livekit_webhook else {},
        )
        self._connections = Connections(request_s=request_s)
        self._server = _Server(
            uvicorn.Config(
                guard,
                http=partial(BoundedProtocol, self._connections),  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",  # what is wrong with requests: a scan of the port would fill the log
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=MOST_CONNECTIONS,  # asyncio accepts as many at once, each of which is a descriptor
                timeout_graceful_shutdown=1,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the server. Raises :class:`ConfigError` if the address cannot be used."""
        try:
            sockets = await asyncio.to_thread(_bound, self._host, self._port)
        except OSError as error:
            raise ConfigError(
                f"{self._at.key}: {self._host}:{self._port} cannot be listened on ({error.strerror}); "
                + _remedy(self._at.key, error)
            ) from None
        self._port = sockets[0].getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets), name="http")

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            with suppress(asyncio.CancelledError):
                await self._serving

    @property
    def port(self) -> int:
        """The port that is listened on; useful if the configured one is 0."""
        return self._port

    @property
    def streams(self) -> int:
        """How many streams of events are open."""
        return self._connections.streams

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"


def _remedy(key: str, error: OSError) -> str:
    if key.startswith("-"):  # an option of a command
        return "choose another one"
    second = ", or for a second process on this machine set SPEECH_RELAY__API__LISTEN"
    return f"choose another address, or null for none{second if error.errno == errno.EADDRINUSE else ''}"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the service."""
        yield


def _bound(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of the host, or for those that this machine has."""
    found: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)):
        try:
            found.append(_listening(family, address[:2] if family == socket.AF_INET else address))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for each in found:
                    each.close()
                raise
            failure = error
        if found and port == 0:
            break
    if failure is not None and not found:
        raise failure
    return found


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(MOST_CONNECTIONS)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
