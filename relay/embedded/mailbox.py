"""From one thread to the event loop of another."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 4096
"""Letters that may lie there: minutes of talk that nobody takes down. What is more is thrown away."""


class Mailbox(Generic[T]):
    """Any thread puts, and never waits; one event loop takes, in the same order."""

    def __init__(self) -> None:
        self._letters: deque[T] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came = asyncio.Event()

    def put(self, letter: T) -> None:
        if len(self._letters) >= MOST:
            return
        self._letters.append(letter)
        if self._loop is not None:
            with suppress(RuntimeError):  # a loop that is closed takes nothing any more
                self._loop.call_soon_threadsafe(self._came.set)

    async def take(self) -> T:
        """The oldest letter, as soon as there is one."""
        self._loop = asyncio.get_running_loop()
        while not self._letters:
            self._came.clear()
            # It may have come between the look and the clearing.
            if not self._letters:
                await self._came.wait()
        return self._letters.popleft()

    def empty(self) -> None:
        """Throw away what lies there."""
        self._letters.clear()
