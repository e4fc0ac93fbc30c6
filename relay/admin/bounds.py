"""Limits of the admin port: connections must not stop delivery, and no web page may read it."""

import asyncio
import logging
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

MOST_CONNECTIONS = 32
LIFETIME_S = 5.0
"""Time for a connection to send the head of its request and to read the answer."""

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".svc")
"""Domains that cannot be registered, so that no web page can be served from them."""


class BoundedServer(web.Server):
    """A web server with at most ``most`` connections, each open for at most ``lifetime_s``.

    A further connection closes the oldest, so that idle connections cannot block a health check.
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
    """Whether a ``Host`` header names another site.

    A web page can have its own name resolved to this machine and then read this port as its own origin (DNS rebinding).
    Addresses and names without a registrable domain cannot belong to such a page; nor can a request without the header,
    which browsers always send. ``own``: further names, in lower case, of this port.
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
