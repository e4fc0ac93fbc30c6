"""Bounds how long operations are retried while the log cannot be written: locked, or disk full."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from relay.errors import Fenced, OutboxError, StreamTaken

T = TypeVar("T")

PAUSE = 0.1
"""Seconds between two attempts."""


class RetryWindow:
    """The common bound for everything that an outbox retries; ends at once when the outbox is closed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._over = asyncio.Event()

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the attempt's result, or raise its last error. ``Fenced`` and ``StreamTaken`` are answers: raised at
        once."""
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
        """Waiting operations fail with their last error."""
        self._over.set()
