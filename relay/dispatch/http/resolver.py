"""Resolves names to addresses, each lookup on a thread of its own.

The event loop's own lookups share a small thread pool: a few names whose servers do not answer would block all other
lookups, and the exit of the process.
"""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from aiohttp.abc import AbstractResolver, ResolveResult

MOST_ADDRESSES = 8
"""Maximum addresses of one family used from an answer.

aiohttp dials them all, drops the first, dials the rest again, and so on. Without a limit, a name with 100 addresses
costs 5,050 connections per attempt, which keeps the event loop busy and floods the owner of those addresses.
"""

_T = TypeVar("_T")
Lookup = Callable[..., Sequence[tuple[Any, ...]]]


class Resolver(AbstractResolver):
    """``getaddrinfo`` for aiohttp, which requests one name at a time per connector and caches the answer for a while.

    ``lookup`` is ``socket.getaddrinfo`` or a function with the same signature; it may block.
    """

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self._asked: Counter[str] = Counter()

    def waits_for(self, host: str) -> bool:
        """Whether a lookup of this name is in progress."""
        return self._asked[host] > 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name, the first ``MOST_ADDRESSES`` of each family. Raises ``OSError`` if it has none."""
        self._asked[host] += 1
        try:
            infos = await _on_a_thread(
                lambda: self._lookup(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
            )
        finally:
            self._asked[host] -= 1
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=address[1],
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, address in _first(infos)
        ]

    async def close(self) -> None:
        """Nothing to close."""


def _first(infos: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    kept: Counter[Any] = Counter()
    chosen = []
    for info in dict.fromkeys(infos):  # an answer may repeat an address
        family = info[0]
        if kept[family] < MOST_ADDRESSES:
            kept[family] += 1
            chosen.append(info)
    return chosen


async def _on_a_thread(work: Callable[[], _T]) -> _T:
    """Return the result of blocking work. Unlike an executor's, the thread is not joined at exit."""
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, name="resolver", daemon=True).start()
    return await asyncio.wrap_future(done)
