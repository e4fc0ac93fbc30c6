"""POSTs over aiohttp's connections.

httpx's own pool does not recover from cancelled requests under load (encode/httpcore#1093), and both clients cost more
than the wire. From aiohttp this uses how connections are made (names, dialling, TLS) and the parser.
"""

import asyncio
import errno
import functools
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, cast

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType
from yarl import URL

from relay.config.endpoint import Egress
from relay.dispatch.http.bounded_connection import HEAD_LIMIT, BoundedConnection
from relay.dispatch.http.egress import AddressRefused, guarded_socket
from relay.dispatch.http.errors import BY_RECEIVER, AttemptFailed, ConnectionStale, OutOfResources, alert_in_words
from relay.dispatch.http.outcome import Answer
from relay.dispatch.http.resolver import Resolver

CONNECT_SECONDS = 5.0
"""For name resolution, connecting and the TLS handshake together."""

CONNECTION_AGE = 60.0
"""Seconds for which an address is used after its name was resolved."""

NAMES_KEPT_S = 10
"""Seconds for which the addresses of a name are cached, at most a sixth of a connection's maximum age."""

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""Operating system errors that mean this machine, not the other side, has run out of a resource."""

REFUSED_WITHIN_S = 1.0
"""Seconds after the TLS handshake within which the receiver refuses a client that has no certificate, or another."""

IDLE_S = 15.0
"""Seconds for which a connection is kept without a request."""

_DIALLED: ContextVar[list[socket.socket]] = ContextVar("dialled")
"""The sockets created for the request that a task is sending: empty if it uses a kept connection."""

_END = (b"", b"")
"""An empty line ends a head."""

# texts of failures that have a specific cure
NO_NAME_SERVER = "no answer from the name servers in time"
UNREACHED = "no connection in time"
REFUSED = "connection refused"
UNTRUSTED = "the certificate is not accepted"
NO_HANDSHAKE = "no TLS handshake in time"
CLOSED_IN_HANDSHAKE = "the connection was closed in the handshake"


class AiohttpTransport:
    """Keeps connections open; sends the given bytes and adds only Host and Content-Length.

    No cookies, no proxies from the environment, no redirects, no decompression. Must be created inside a running event
    loop. ``tls`` None verifies with the system's certificates.

    The other side may close a kept connection just when a request is written to it. If no byte of an answer has arrived
    on one, the request is sent once more on a new connection: the only error was to assume that the old one was alive.
    A receiver that had read the first request gets the second with the same ``webhook-id``.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        egress: Egress | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        connection_age: float = CONNECTION_AGE,
        resolver: Resolver | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds)
        self._resolver = resolver or Resolver()
        self._guarded_socket = guarded_socket(egress or Egress())
        names_kept = min(NAMES_KEPT_S, int(connection_age / 6))
        self._connector = _BoundedConnector(
            connection_age - names_kept,
            self._strayed,
            limit=0,
            ssl=tls or True,
            ttl_dns_cache=names_kept,
            resolver=self._resolver,
            socket_factory=self._dial,
        )
        self._kept: deque[tuple[float, BoundedConnection]] = deque()
        """Connections that wait for a request, and since when, on the event loop's clock. aiohttp's own pool takes ten
        times as long to give one out and take it back."""
        self._closing_idle: asyncio.TimerHandle | None = None
        self._out_of_step = False
        """The receiver has written past the end of an answer: none of its connections is reused for another request."""
        self._target: _Target | None = None

    async def send(
        self, url: httpx.URL, headers: Sequence[tuple[bytes, bytes]], body: bytes, seconds: float
    ) -> tuple[BoundedConnection, Answer]:
        """POST, and wait for at most so many seconds for the answer's head. The connection must be given back by
        ``release``. Raises ``AttemptFailed``, ``OutOfResources`` or ``TimeoutError``."""
        deadline = self._loop.time() + seconds
        target = self._target_of(url)
        head = target.head(headers, len(body))
        if (kept := self._take_kept()) is not None:
            with suppress(ConnectionStale):
                return kept, await kept.exchange(head, body, deadline)
        async with asyncio.timeout_at(deadline):
            connection = await self._connect(target)
        return connection, await connection.exchange(head, body, deadline)

    def release(self, connection: BoundedConnection) -> None:
        """Keep the connection for another request if the answer is over, else close it."""
        if not connection.reusable or self._out_of_step or self._connector.closed:
            connection.leave_pool()
            return
        self._kept.append((self._loop.time(), connection))
        if self._closing_idle is None:
            self._closing_idle = self._loop.call_later(IDLE_S, self._close_idle)

    async def connect(self, url: httpx.URL) -> str:
        """Connect as for a request, send nothing, and close. Returns the connected address.

        Raises as ``send`` does.
        """
        connection = await self._connect(self._target_of(url))
        try:
            transport = connection.transport
            address = "" if transport is None else str(transport.get_extra_info("peername")[0])
            if url.scheme == "https":
                await _prove_accepted(connection)
        finally:
            connection.leave_pool()
        return address

    async def aclose(self) -> None:
        """Close every connection."""
        if self._closing_idle is not None:
            self._closing_idle.cancel()
        closed = self._connector.close()
        for _, connection in self._kept:
            connection.leave_pool()
        self._kept.clear()
        await closed

    def _strayed(self) -> None:
        self._out_of_step = True

    def _take_kept(self) -> BoundedConnection | None:
        while self._kept and not self._out_of_step:
            _, connection = self._kept.popleft()
            if connection.reusable:
                return connection
            connection.leave_pool()
        return None

    def _close_idle(self) -> None:
        """Close what nothing was sent on for ``IDLE_S``."""
        oldest = self._loop.time() - IDLE_S
        while self._kept and self._kept[0][0] <= oldest:
            self._kept.popleft()[1].leave_pool()
        self._closing_idle = None
        if self._kept:
            self._closing_idle = self._loop.call_at(self._kept[0][0] + IDLE_S, self._close_idle)

    def _target_of(self, url: httpx.URL) -> "_Target":
        if self._target is None or self._target.given is not url:  # an endpoint has one URL
            self._target = _Target(url)
        return self._target

    async def _connect(self, target: "_Target") -> BoundedConnection:
        dialled: list[socket.socket] = []
        _DIALLED.set(dialled)
        try:
            pooled = await self._connector.connect(target.request, [], self._timeout)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._failure(error, target.url, dialled) from error
        connection = pooled.protocol
        assert isinstance(connection, BoundedConnection)  # noqa: S101 - the connector makes no others
        connection.pooled = pooled
        return connection

    def _dial(self, info: AddrInfoType) -> socket.socket:
        dialled = self._guarded_socket(info)
        # a small buffer, so that unread bytes stay in the network: the kernel would accept some megabytes
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HEAD_LIMIT)
        _DIALLED.get().append(dialled)
        return dialled

    def _failure(self, error: Exception, url: URL, dialled: list[socket.socket]) -> AttemptFailed | OutOfResources:
        """Translate aiohttp's connection errors to the stage where the attempt ended."""
        match error:
            case TimeoutError() if self._resolver.waits_for(url.raw_host or ""):
                return AttemptFailed("dns", NO_NAME_SERVER)
            case TimeoutError() if url.scheme == "https" and any(map(_connected, dialled)):
                return AttemptFailed("tls", NO_HANDSHAKE)
            case TimeoutError():
                return AttemptFailed("connect", UNREACHED)
            case aiohttp.ClientConnectorError(os_error=OSError(errno=number) as cause) if number in _OURS:
                return OutOfResources(str(cause.strerror))  # resolving a name takes a socket, too
            case aiohttp.ClientConnectorDNSError(os_error=cause):
                return AttemptFailed("dns", str(cause.strerror or cause))
            case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
                return AttemptFailed("tls", f"{UNTRUSTED}: {cause.verify_message}")
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
                return AttemptFailed("tls", alert_in_words(error.args[1]) or f"the handshake failed: {error.args[1]}")
            case aiohttp.ClientConnectorError(os_error=AddressRefused() as refusal):
                return AttemptFailed("egress", str(refusal))
            case aiohttp.ClientConnectorError(os_error=ConnectionResetError()):
                # a connection that is only being opened is not reset
                return AttemptFailed("tls", CLOSED_IN_HANDSHAKE)
            case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
                return AttemptFailed("connect", REFUSED)
            case aiohttp.ClientConnectorError(os_error=cause):
                return AttemptFailed("connect", str(cause.strerror or "no address could be connected to"))
            case aiohttp.ClientConnectionError():
                return AttemptFailed("connect", "the connections are being closed")
            case _:
                return AttemptFailed("connect", f"the URL cannot be used ({type(error).__name__})")


class _BoundedConnector(aiohttp.TCPConnector):
    """aiohttp's pool, with connections that limit what they read.

    ``_factory`` is private: aiohttp has no public way to choose the protocol of a connection.
    """

    def __init__(self, max_age: float, strayed: Callable[[], None] = lambda: None, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = cast(
            "functools.partial[ResponseHandler]", functools.partial(BoundedConnection, self._loop, max_age, strayed)
        )


class _Target:
    """The parts that are the same in every request to one URL."""

    def __init__(self, given: httpx.URL) -> None:
        self.given, self.url = given, URL(str(given), encoded=True)
        self.request = aiohttp.ClientRequest("POST", self.url, loop=asyncio.get_running_loop())
        """Tells the pool where to connect. It is never sent."""
        self._first = b"POST %b HTTP/1.1" % self.url.raw_path_qs.encode()
        self._host = b"Host: %b" % (self.url.host_port_subcomponent or "").encode()

    def head(self, headers: Sequence[tuple[bytes, bytes]], size: int) -> bytes:
        """The head of a request: the header bytes as given, plus Host and Content-Length unless given."""
        lines = [self._first, *map(b": ".join, headers)]
        given = b"\n".join(lines).lower()
        if b"\nhost:" not in given:
            lines.append(self._host)
        if b"\ncontent-length:" not in given:
            lines.append(b"Content-Length: %d" % size)
        lines += _END
        text = b"\r\n".join(lines)
        breaks = len(lines) - 1
        if text.count(b"\n") != breaks or text.count(b"\r") != breaks or b"\0" in text:
            raise ValueError("a request header has a line break in it")  # it would add headers, or a request
        return text


async def _prove_accepted(connection: BoundedConnection) -> None:
    """Wait for a refusal: with TLS 1.3, that of a client's certificate follows the handshake. Raises
    ``AttemptFailed``."""
    if (closed := connection.closed) is not None:
        await asyncio.wait([closed], timeout=REFUSED_WITHIN_S)
        if not closed.done():
            return
    error = closed.exception() if closed is not None else None
    why = "closed the connection after the TLS handshake: it may demand a client certificate, in tls.cert"
    raise AttemptFailed("tls", alert_in_words(error.__cause__ if error else None) or BY_RECEIVER + why)


def _connected(dialled: socket.socket) -> bool:
    try:
        dialled.getpeername()
    except OSError:  # not connected yet, or closed again
        return False
    return True
