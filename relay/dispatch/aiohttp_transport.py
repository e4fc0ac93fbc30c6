"""httpx's transport interface over aiohttp's connections.

httpx's own pool does not recover from cancelled requests under load (encode/httpcore#1093), and its client costs more
than the wire; so this is called directly, without the client, and says more precisely than httpx's exceptions where an
attempt failed.
"""

import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar

import aiohttp
import httpx
from aiohttp.connector import AddrInfoType
from yarl import URL

from relay.config.endpoint import Egress
from relay.dispatch.egress import AddressRefused, guarded_socket
from relay.dispatch.resolver import Resolver

CONNECT_SECONDS = 5.0
"""For name resolution, connecting and the TLS handshake together."""

NAMES_KEPT_S = 30
"""For how long the addresses of a name are believed."""

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""What the operating system says when this machine, not the other side, has run out of something."""


_DIALLED: ContextVar[list[socket.socket]] = ContextVar("dialled")
"""What was dialled for the request that a task is sending: nothing where it went out on a kept connection."""


class NameNotResolved(httpx.ConnectError):
    """The host name has no address."""


class EgressRefused(httpx.ConnectError):
    """The name led to an address that is never dialled."""


class TlsFailed(httpx.ConnectError):
    """The certificate is not to be trusted, or the handshake failed."""


class OutOfResources(httpx.TransportError):
    """This machine has no file descriptors, memory or ports left."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Keeps connections open per origin; sends what it is given and adds only Host and Content-Length.

    No cookies, no proxies from the environment, no redirects, no decompression. Must be made inside a running event
    loop. ``tls`` None verifies with the system's certificates.

    A kept connection may be closed by the other side just when a request is written to it. Where not a byte of an
    answer has come on one, the request is sent once more, on a new connection: nothing has failed but the guess that
    the old one still stood. A receiver that had read the first gets the second with the same ``webhook-id``.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        egress: Egress | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        resolver: Resolver | None = None,
    ) -> None:
        self._tls, self._connect_seconds = tls, connect_seconds
        self._resolver = resolver or Resolver()
        self._guarded_socket = guarded_socket(egress or Egress())
        self._keeping = self._session(keep=True)
        self._once: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and wait for the answer's head. Raises ``httpx.TransportError``, as precise a kind as is known."""
        body = request.read() if isinstance(request.stream, httpx.SyncByteStream) else await request.aread()
        dialled: list[socket.socket] = []
        _DIALLED.set(dialled)
        try:
            try:
                answer = await _send(self._keeping, request, body)
            except aiohttp.ClientConnectionError as error:
                if dialled or not _closed_without_a_word(error):
                    raise
                self._once = self._once or self._session(keep=False)
                answer = await _send(self._once, request, body)
        except (aiohttp.ClientError, ValueError) as error:
            raise self._translated(error, request.url, dialled) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._keeping.close()
        if self._once:
            await self._once.close()

    def _session(self, *, keep: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                ssl=self._tls or True,
                ttl_dns_cache=NAMES_KEPT_S,
                resolver=self._resolver,
                socket_factory=self._dial,
                force_close=not keep,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_seconds),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )

    def _dial(self, info: AddrInfoType) -> socket.socket:
        dialled = self._guarded_socket(info)
        _DIALLED.get().append(dialled)
        return dialled

    def _translated(
        self, error: aiohttp.ClientError | ValueError, url: httpx.URL, dialled: list[socket.socket]
    ) -> httpx.TransportError:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            if self._resolver.waits_for(url.host):
                return NameNotResolved("no answer from the name servers in time")
            if url.scheme == "https" and any(map(_connected, dialled)):
                return TlsFailed("no TLS handshake in time")
        return _translated(error)


def _connected(dialled: socket.socket) -> bool:
    try:
        dialled.getpeername()
    except OSError:  # not yet, or closed again
        return False
    return True


async def _send(session: aiohttp.ClientSession, request: httpx.Request, body: bytes) -> aiohttp.ClientResponse:
    return await session.request(
        request.method,
        URL(str(request.url), encoded=True),
        data=body,
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
        allow_redirects=False,
    )


def _closed_without_a_word(error: aiohttp.ClientConnectionError) -> bool:
    match error:
        case aiohttp.ServerDisconnectedError(message=aiohttp.http.RawResponseMessage()):
            return False  # the answer had begun
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return True
        case _:  # reading or writing failed because the connection was gone
            return isinstance(error.__cause__, ConnectionError)


class _Body(httpx.AsyncByteStream):
    # an iterator and not a generator: the event loop keeps a book on every generator
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._answer.content.readany()
        except aiohttp.ClientError as error:
            raise _translated(error) from error
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Give the connection back where the body was read to its end, else close it."""
        self._answer.close()


def _translated(error: aiohttp.ClientError | ValueError) -> httpx.TransportError:
    match error:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout("no connection in time")
        case aiohttp.ClientConnectorDNSError(os_error=OSError(errno=number)) if number in _OURS:
            return OutOfResources(str(error.os_error.strerror))  # to ask for a name takes a socket, too
        case aiohttp.ClientConnectorDNSError():
            return NameNotResolved(str(error.os_error.strerror or error.os_error))
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return TlsFailed(str(error.args[1]))
        case aiohttp.ClientConnectorError(os_error=AddressRefused() as refusal):
            return EgressRefused(str(refusal))
        case aiohttp.ClientConnectorError(os_error=ConnectionResetError()):
            return TlsFailed("the connection was closed in the handshake")  # what is only being opened is not reset
        case aiohttp.ClientOSError(__cause__=ssl.SSLError() as cause):
            # with TLS 1.3 a client certificate is refused after the handshake, as an answer to the request
            return TlsFailed(str(cause.reason or "the TLS connection broke off"))
        case aiohttp.ClientOSError(errno=number) if number in _OURS:
            return OutOfResources(str(error.strerror))
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError(str(error.os_error.strerror or "no address could be connected to"))
        # aiohttp reports a failed write and a failed read as the same class; the text tells them apart
        case aiohttp.ClientOSError(strerror=str(text)) if text.startswith("Can not write request body"):
            return httpx.WriteError("the connection broke off while sending")
        case aiohttp.ClientConnectionResetError():
            return httpx.WriteError("the connection was gone before the request was sent")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return httpx.ReadError("the connection was closed before the answer was complete")
        case aiohttp.ClientPayloadError():
            return httpx.RemoteProtocolError("the answer's body is cut short or malformed")
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError("the answer is not HTTP, or its head is too large")
        case _:
            return httpx.UnsupportedProtocol(f"the URL cannot be used ({type(error).__name__})")
