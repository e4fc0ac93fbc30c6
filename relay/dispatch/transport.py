"""The seam between the dispatcher and HTTP: one POST in, one outcome out."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

import httpx

from relay.config.endpoint import Endpoint
from relay.config.tls import client_context
from relay.dispatch.aiohttp_transport import AiohttpTransport, EgressRefused, NameNotResolved, OutOfResources, TlsFailed
from relay.dispatch.outcome import Delivered, Failed, Fault, Outcome, Stage
from relay.errors import ConfigError

BODY_LIMIT = 16_384
"""How much of an answer's body is read before the connection is closed, in bytes. What it says is not kept."""

Headers = list[tuple[bytes, bytes]]

log = logging.getLogger(__name__)


class Transport(Protocol):
    """What the dispatcher needs of HTTP."""

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, deadline: float) -> Outcome:
        """POST once and say what came of it; never raises but for cancellation. ``deadline`` in seconds, for all."""

    async def aclose(self) -> None:
        """Close every connection."""


OpenTransport = Callable[[Endpoint], Transport]
"""Makes the transport of one endpoint: nobody else's connections, certificates or rules of egress."""


class HttpTransport:
    """Posts through an httpx transport: ``AiohttpTransport`` in earnest, ``httpx.MockTransport`` where it helps."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, deadline: float) -> Outcome:
        """See ``Transport``. A 2xx counts only when its body ends, or reaches the limit, within the deadline."""
        began = time.perf_counter()
        status: int | None = None
        retry_after: str | None = None

        def failed(stage: Stage, detail: str = "") -> Failed:
            # the head of an answer that was no success says more than how its body then broke off
            if status is not None and not _success(status):
                return Failed("status", _since(began), status, retry_after)
            return Failed(stage, _since(began), status, None, detail)

        try:
            async with asyncio.timeout(deadline):
                request = httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(body))
                response = await self._transport.handle_async_request(request)
                status = response.status_code
                if not _success(status):
                    retry_after = response.headers.get("retry-after")
                await _discard(response)
        except TimeoutError:
            return failed("timeout")
        except OutOfResources as fault:
            return Fault(_since(began), str(fault))
        except httpx.TransportError as error:
            return failed(_STAGES.get(type(error)) or ("headers" if status is None else "body"), str(error))
        except Exception as bug:
            log.exception("the HTTP client failed in a way that is not foreseen")
            return Fault(_since(began), type(bug).__name__)
        return Delivered(status, _since(began)) if _success(status) else failed("status")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def open_transport(endpoint: Endpoint) -> HttpTransport:
    """The transport of one endpoint, an ``OpenTransport``: connections under one rule are never lent to another's.

    Must be called inside a running event loop. Raises ``ConfigError`` where the endpoint's certificates cannot be used
    any more.
    """
    try:
        tls = client_context(endpoint.tls.ca, endpoint.tls.cert, endpoint.tls.key)
    except ValueError as error:
        raise ConfigError(f"endpoint {endpoint.name}: tls: {error}") from None
    return HttpTransport(
        AiohttpTransport(tls=tls, egress=endpoint.egress, connect_seconds=endpoint.connect_timeout.total_seconds())
    )


_STAGES: dict[type[httpx.TransportError], Stage] = {
    NameNotResolved: "dns",
    EgressRefused: "egress",
    TlsFailed: "tls",
    httpx.ConnectError: "connect",
    httpx.ConnectTimeout: "connect",
    httpx.UnsupportedProtocol: "connect",
    httpx.WriteError: "write",
}


async def _discard(response: httpx.Response) -> None:
    """Read the body to its end, so that the connection can be used again, or to the limit."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - AsyncBaseTransport's contract
    size = 0
    try:
        async for chunk in stream:
            size += len(chunk)
            if size > BODY_LIMIT:
                break
    finally:
        await stream.aclose()


def _success(status: int) -> bool:
    return 200 <= status < 300


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
