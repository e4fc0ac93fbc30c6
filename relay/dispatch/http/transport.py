"""The interface between the dispatcher and HTTP: one POST in, one outcome out."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import httpx

from relay.config.endpoint import Endpoint
from relay.config.tls import client_context
from relay.dispatch.http.aiohttp_transport import AiohttpTransport
from relay.dispatch.http.bounded_connection import BoundedConnection
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
    """Posts over an endpoint's connections."""

    def __init__(self, connections: AiohttpTransport, *, keep: int = 0) -> None:
        """``keep``: how many bytes of each answer's content are kept; 0 for none."""
        self._connections, self._keep = connections, keep

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, deadline: float) -> Outcome:
        """See ``Transport``. The status of a complete head decides: what follows can only cost the connection."""
        began = time.perf_counter()
        try:
            connection, answer = await self._connections.send(url, headers, body, deadline)
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
        try:
            if not connection.ended:
                await _read_rest(connection, max(0.0, min(REST_SECONDS, deadline - elapsed / 1000)))
            content = connection.content(self._keep) if self._keep else None
        finally:
            self._connections.release(connection)
        if 200 <= answer.status < 300:
            return Delivered(answer.status, elapsed, content)
        return Failed("status", elapsed, answer.status, answer.retry_after, answer=content)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connections.aclose()


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


async def _read_rest(connection: BoundedConnection, seconds: float) -> None:
    """Wait a limited time for the end of an answer, so that its connection can be reused."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await connection.end()


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
