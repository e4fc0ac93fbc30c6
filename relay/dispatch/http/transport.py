"""The interface between the dispatcher and HTTP: one POST in, one outcome out."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

import httpx

from relay.config.endpoint import Endpoint
from relay.config.tls import client_context
from relay.dispatch.http.aiohttp_transport import CONTENT, AiohttpTransport
from relay.dispatch.http.errors import AttemptFailed, OutOfResources
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome
from relay.dispatch.http.resolver import Resolver
from relay.errors import ConfigError

REST_SECONDS = 1.0
"""How long to wait for the end of an answer after its head, before the connection is closed."""

ANSWER_KEPT = 1024
"""Bytes of an answer that are kept, where the endpoint has ``keep_answers``."""

Headers = list[tuple[bytes, bytes]]

log = logging.getLogger(__name__)


class Transport(Protocol):
    """The HTTP operations that the dispatcher needs."""

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, deadline: float) -> Outcome:
        """POST once and return the outcome; raises only on cancellation. ``deadline`` in seconds, for the whole
        attempt."""

    async def aclose(self) -> None:
        """Close every connection."""


OpenTransport = Callable[[Endpoint], Transport]
"""Creates the transport of one endpoint: connections, certificates and egress rules are never shared."""


class HttpTransport:
    """Posts through an httpx transport: ``AiohttpTransport`` in production, ``httpx.MockTransport`` in tests."""

    def __init__(self, transport: httpx.AsyncBaseTransport, *, keep: int = 0) -> None:
        """``keep``: how many bytes of each answer's content are kept; 0 for none."""
        self._transport, self._keep = transport, keep

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, deadline: float) -> Outcome:
        """See ``Transport``. The status of a complete head decides: what follows can only cost the connection."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(deadline):
                request = httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(body))
                response = await self._transport.handle_async_request(request)
        except TimeoutError:
            return Failed("timeout", _since(began))
        except AttemptFailed as failure:
            return Failed(failure.stage, _since(began), detail=str(failure))
        except OutOfResources as fault:
            return Fault(_since(began), str(fault))
        except Exception as bug:
            log.exception("the HTTP client failed in a way that is not foreseen")
            return Fault(_since(began), type(bug).__name__)
        elapsed = _since(began)
        if not response.is_closed:
            await _read_rest(response, max(0.0, min(REST_SECONDS, deadline - elapsed / 1000)))
        answer = response.extensions[CONTENT](self._keep) if self._keep else None
        if 200 <= response.status_code < 300:
            return Delivered(response.status_code, elapsed, answer)
        return Failed("status", elapsed, response.status_code, response.headers.get("retry-after"), answer=answer)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def open_transport(endpoint: Endpoint) -> HttpTransport:
    """The transport of one endpoint, an ``OpenTransport``: connections are never shared between endpoints with
    different rules.

    Must be called inside a running event loop. Raises ``ConfigError`` if the endpoint's certificates can no longer be
    used.
    """
    return HttpTransport(open_connections(endpoint), keep=ANSWER_KEPT if endpoint.keep_answers else 0)


def open_connections(endpoint: Endpoint, resolver: Resolver | None = None) -> AiohttpTransport:
    """The connections of one endpoint, as in ``open_transport``; ``resolver`` replaces the system's."""
    try:
        tls = client_context(endpoint.tls.ca, endpoint.tls.cert, endpoint.tls.key)
    except ValueError as error:
        raise ConfigError(f"endpoint {endpoint.name}: tls: {error}") from None
    return AiohttpTransport(
        tls=tls,
        egress=endpoint.egress,
        connect_seconds=endpoint.connect_timeout.total_seconds(),
        connection_age=endpoint.max_connection_age.total_seconds(),
        resolver=resolver,
    )


async def _read_rest(response: httpx.Response, seconds: float) -> None:
    """Wait a limited time for the end of an answer, so that its connection can be reused."""
    try:
        async with asyncio.timeout(seconds):
            async for _ in response.stream:  # type: ignore[union-attr]  # AsyncBaseTransport's answers are async
                pass
    except TimeoutError:
        pass
    finally:
        await response.stream.aclose()  # type: ignore[union-attr]


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
