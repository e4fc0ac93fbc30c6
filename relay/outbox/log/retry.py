"""How long the log is tried again that cannot be written now: another process holds it, or its disk is full."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from relay.errors import Fenced, OutboxError, StreamTaken

T = TypeVar("T")

PAUSE = 0.1
"""Seconds between two attempts."""


class Patience:
    """The same bound for everything that an outbox tries again, over at once when the outbox is closed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._over = asyncio.Event()

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What the attempt returns, or raises at last. ``Fenced`` and ``StreamTaken`` are answers: raised at once."""
        give_up_at = asyncio.get_running_loop().time() + self.seconds
        while True:
            try:
                return await attempt()
            except (Fenced, StreamTaken):
                raise
            except OutboxError:
                if self._over.is_set() or asyncio.get_running_loop().time() >= give_up_at:
                    raise
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await self._over.wait()

    def end(self) -> None:
        """What is being waited for fails with what it failed with last."""
        self._over.set()
