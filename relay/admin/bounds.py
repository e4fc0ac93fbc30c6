"""Limits of the admin port: what strangers open there must not stop delivery, and no web page may read it."""

import asyncio
import logging
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

MOST_CONNECTIONS = 32
LIFETIME_S = 5.0
"""For a connection to send the head of its request and to read the answer."""

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".svc")
"""Names that nobody can register, so that no web page can be at home there."""


class BoundedServer(web.Server):
    """A web server with at most ``most`` connections, each of which lives ``lifetime_s`` at most.

    One more connection closes the oldest, so that connections without a request cannot keep a health check out.
    """

    def __init__(
        self, handler: Any, *, most: int = MOST_CONNECTIONS, lifetime_s: float = LIFETIME_S, **options: Any
    ) -> None:
        super().__init__(handler, logger=request_log(), **options)
        self._most, self._lifetime_s = most, lifetime_s
        self._open: dict[object, tuple[asyncio.Transport, asyncio.TimerHandle]] = {}
        """In the order in which they were opened."""

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        timer = asyncio.get_running_loop().call_later(self._lifetime_s, transport.abort)
        self._open[handler] = transport, timer
        if len(self._open) > self._most:
            self._forget(next(iter(self._open))).abort()

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        if handler in self._open:
            self._forget(handler)
        super().connection_lost(handler, exc)

    def _forget(self, handler: object) -> asyncio.Transport:
        transport, timer = self._open.pop(handler)
        timer.cancel()
        return transport


def request_log() -> logging.Logger:
    """Where a server of aiohttp logs its errors: those of the handler, and not what is wrong with requests.

    aiohttp logs each of these with a traceback and with what was sent: a scan of the port would fill the log, and a
    header that a client got wrong may be a secret. The client is told 400.
    """
    logger = logging.getLogger("relay.http_server")
    logger.addFilter(_is_wanted)  # once: adding the same filter again changes nothing
    return logger


def _is_wanted(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return not isinstance(error, (HttpProcessingError, web.RequestPayloadError))


def foreign_host(header: str | None, own: Collection[str]) -> bool:
    """Whether a ``Host`` header names somebody else's site.

    A web page can have its own name resolved to this machine and then ask this port as if it were its own (DNS
    rebinding). Addresses and names without a registrable domain cannot be such a page's; neither is a request without
    the header, which browsers always send. ``own``: further names, in lower case, that this port is known by.
    """
    if header is None:
        return False
    name = _hostname(header)
    if "." not in name or name in own or name.endswith(_LOCAL_SUFFIXES):
        return False
    try:
        ip_address(name)
    except ValueError:
        return True
    return False


def _hostname(header: str) -> str:
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
