"""Names to addresses, each lookup on a thread of its own.

The event loop's own lookups share a handful of threads: a few names whose servers do not answer would keep everybody
else's from being asked for, and the process from ending.
"""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from aiohttp.abc import AbstractResolver, ResolveResult

_T = TypeVar("_T")
Lookup = Callable[..., Sequence[tuple[Any, ...]]]


class Resolver(AbstractResolver):
    """``getaddrinfo`` for aiohttp. It asks for one name at a time per connector, and remembers the answer for a while.

    ``lookup`` is ``socket.getaddrinfo`` or something of that shape; it may block.
    """

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup
        self._asked: Counter[str] = Counter()

    def waits_for(self, host: str) -> bool:
        """Whether a lookup of this name is under way."""
        return self._asked[host] > 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises ``OSError`` where there are none."""
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
            for found, _, protocol, _, address in infos
        ]

    async def close(self) -> None:
        """Nothing is kept open."""


async def _on_a_thread(work: Callable[[], _T]) -> _T:
    """The result of blocking work. Unlike an executor's, the thread is not waited for at exit."""
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, name="resolver", daemon=True).start()
    return await asyncio.wrap_future(done)
