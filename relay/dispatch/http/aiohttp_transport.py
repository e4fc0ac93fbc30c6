"""httpx's transport interface over aiohttp's connection pool.

httpx's own pool does not recover from cancelled requests under load (encode/httpcore#1093), and both clients cost more
than the wire. This transport is therefore called directly, without a client. From aiohttp it uses the pool (names,
dialling, TLS, keeping connections) and the parser.
"""

import asyncio
import errno
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, cast

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection
from yarl import URL

from relay.config.endpoint import Egress
from relay.dispatch.http.bounded_connection import HEAD_LIMIT, BoundedConnection
from relay.dispatch.http.egress import AddressRefused, guarded_socket
from relay.dispatch.http.errors import AttemptFailed, ConnectionStale, OutOfResources
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

CONTENT = "relay_content"
"""The extension of a response that returns the beginning of its content."""

_DIALLED: ContextVar[list[socket.socket]] = ContextVar("dialled")
"""The sockets created for the request that a task is sending: empty if it uses a kept connection."""

# texts of failures that have a specific cure
NO_NAME_SERVER = "no answer from the name servers in time"
UNREACHED = "no connection in time"
REFUSED = "connection refused"
UNTRUSTED = "the certificate is not accepted"
NO_HANDSHAKE = "no TLS handshake in time"


class AiohttpTransport(httpx.AsyncBaseTransport):
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
        self._tls = tls
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds)
        self._connection_age = connection_age
        self._resolver = resolver or Resolver()
        self._guarded_socket = guarded_socket(egress or Egress())
        self._keeping, self._once = self._connector(keep=True), self._connector(keep=False)
        self._out_of_step = False
        """The receiver has written past the end of an answer: none of its connections is reused for another request."""
        self._target = _Target("http://none.invalid/")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and wait for the answer's head. Raises ``AttemptFailed`` or ``OutOfResources``.

        The answer's content is not part of it: the extension ``CONTENT`` returns the beginning of what has come.
        Reading the stream waits for the end, so that its connection can be kept.
        """
        body = request.read() if isinstance(request.stream, httpx.SyncByteStream) else await request.aread()
        target = self._target_of(request.url)
        head = target.head(request.method, request.headers.raw, len(body))
        try:
            connection, answer = await self._send(
                self._once if self._out_of_step else self._keeping, target, head, body
            )
        except ConnectionStale as stale:
            if _DIALLED.get():  # a new connection
                raise
            self._out_of_step = self._out_of_step or stale.out_of_step
            connection, answer = await self._send(self._once, target, head, body)
        rest = _Rest(connection)
        response = httpx.Response(
            answer.status, headers=answer.headers, stream=rest, extensions={CONTENT: rest.content}
        )
        response.is_closed = rest.close_if_ended()
        return response

    async def connect(self, url: httpx.URL) -> str:
        """Connect as for a request, send nothing, and close. Returns the connected address.

        Raises as ``handle_async_request`` does.
        """
        connection, protocol = await self._connect(self._once, self._target_of(url))
        assert protocol.transport is not None  # noqa: S101 - it was just connected
        address = str(protocol.transport.get_extra_info("peername")[0])
        connection.close()
        return address

    async def aclose(self) -> None:
        """Close every connection."""
        await self._keeping.close()
        await self._once.close()

    def _connector(self, *, keep: bool) -> "_BoundedConnector":
        names_kept = min(NAMES_KEPT_S, int(self._connection_age / 6))
        return _BoundedConnector(
            self._connection_age - names_kept,
            limit=0,
            ssl=self._tls or True,
            ttl_dns_cache=names_kept,
            resolver=self._resolver,
            socket_factory=self._dial,
            force_close=not keep,
        )

    def _target_of(self, url: httpx.URL) -> "_Target":
        text = str(url)
        if self._target.text != text:  # an endpoint has one URL
            self._target = _Target(text)
        return self._target

    async def _send(
        self, connector: "_BoundedConnector", target: "_Target", head: bytes, body: bytes
    ) -> tuple[Connection, Answer]:
        connection, protocol = await self._connect(connector, target)
        try:
            return connection, await protocol.exchange(head, body)
        except BaseException:
            connection.close()
            raise

    async def _connect(self, connector: "_BoundedConnector", target: "_Target") -> tuple[Connection, BoundedConnection]:
        dialled: list[socket.socket] = []
        _DIALLED.set(dialled)
        try:
            connection = await connector.connect(target.request, [], self._timeout)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._failure(error, target.url, dialled) from error
        protocol = connection.protocol
        assert isinstance(protocol, BoundedConnection)  # noqa: S101 - the connector makes no others
        return connection, protocol

    def _dial(self, info: AddrInfoType) -> socket.socket:
        dialled = self._guarded_socket(info)
        # a small buffer, so that unread bytes stay in the network: the kernel would accept some megabytes
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HEAD_LIMIT)
        _DIALLED.get().append(dialled)
        return dialled

    def _failure(self, error: Exception, url: URL, dialled: list[socket.socket]) -> httpx.TransportError:
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
                return AttemptFailed("tls", f"the handshake failed: {error.args[1]}")
            case aiohttp.ClientConnectorError(os_error=AddressRefused() as refusal):
                return AttemptFailed("egress", str(refusal))
            case aiohttp.ClientConnectorError(os_error=ConnectionResetError()):
                # a connection that is only being opened is not reset
                return AttemptFailed("tls", "the connection was closed in the handshake")
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

    def __init__(self, max_age: float, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = cast(
            "functools.partial[ResponseHandler]", functools.partial(BoundedConnection, self._loop, max_age)
        )


class _Target:
    """The parts that are the same in every request to one URL."""

    def __init__(self, text: str) -> None:
        self.text, self.url = text, URL(text, encoded=True)
        self.request = aiohttp.ClientRequest("POST", self.url, loop=asyncio.get_running_loop())
        """Tells the pool where to connect. It is never sent."""
        self._path = self.url.raw_path_qs.encode()
        self._host = b"Host: %b\r\n" % (self.url.host_port_subcomponent or "").encode()

    def head(self, method: str, headers: list[tuple[bytes, bytes]], size: int) -> bytes:
        """The head of a request: the header bytes as given, plus Host and Content-Length unless given."""
        given = {name.lower() for name, _ in headers}
        lines = [b"%b: %b\r\n" % header for header in headers]
        if b"content-length" not in given:
            lines.append(b"Content-Length: %d\r\n" % size)
        text = b"%b %b HTTP/1.1\r\n%b%b\r\n" % (
            method.encode(),
            self._path,
            b"" if b"host" in given else self._host,
            b"".join(lines),
        )
        breaks = len(lines) + 2 + (b"host" not in given)
        if text.count(b"\n") != breaks or text.count(b"\r") != breaks or b"\0" in text:
            raise ValueError("a request header has a line break in it")  # it would add headers, or a request
        return text


class _Rest(httpx.AsyncByteStream):
    """The content of an answer."""

    # an iterator, not a generator: asyncio tracks every async generator
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        protocol = connection.protocol
        assert isinstance(protocol, BoundedConnection)  # noqa: S101 - the connector makes no others
        self._protocol = protocol
        self.content = protocol.content()
        """Returns at most so many bytes of the beginning. What has not come yet is left out."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await self._protocol.end()
        raise StopAsyncIteration

    def close_if_ended(self) -> bool:
        """Return the connection to the pool if the answer is over."""
        if self._protocol.ended:
            self._connection.release()  # the pool closes a connection that cannot take another request
            return True
        return False

    async def aclose(self) -> None:
        """Return the connection to the pool if the answer is over, else close it."""
        if not self.close_if_ended():
            self._connection.close()


def _connected(dialled: socket.socket) -> bool:
    try:
        dialled.getpeername()
    except OSError:  # not connected yet, or closed again
        return False
    return True
