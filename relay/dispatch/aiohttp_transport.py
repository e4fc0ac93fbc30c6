"""httpx's transport interface over aiohttp's connections.

httpx's own pool does not recover from cancelled requests under load (encode/httpcore#1093), and its client costs more
than the wire; so this is called directly, without the client, and says more precisely than httpx's exceptions where an
attempt failed.
"""

import errno
import ssl
from collections.abc import AsyncIterator

import aiohttp
import httpx
from yarl import URL

from relay.dispatch.egress import AddressRefused, guarded_socket

CONNECT_SECONDS = 5.0
"""For name resolution, connecting and the TLS handshake together."""

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""What the operating system says when this machine, not the other side, has run out of something."""


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
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls or True, ttl_dns_cache=30, socket_factory=guarded_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_seconds),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and wait for the answer's head. Raises ``httpx.TransportError``, as precise a kind as is known."""
        try:
            answer = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                data=request.read() if isinstance(request.stream, httpx.SyncByteStream) else await request.aread(),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                allow_redirects=False,
            )
        except (aiohttp.ClientError, ValueError) as error:
            raise _translated(error) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()


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
        case aiohttp.ClientConnectorDNSError():
            return NameNotResolved(str(error.os_error.strerror or error.os_error))
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return TlsFailed(str(error.args[1]))
        case aiohttp.ClientConnectorError(os_error=AddressRefused() as refusal):
            return EgressRefused(str(refusal))
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
