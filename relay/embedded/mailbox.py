"""Passes items from any thread to one event loop."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 4096
"""The maximum number of items: minutes of speech that are not consumed. Further items are dropped."""


class Mailbox(Generic[T]):
    """Any thread puts, without waiting; one event loop takes, in the same order."""

    def __init__(self) -> None:
        self._letters: deque[T] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came = asyncio.Event()

    def put(self, letter: T) -> None:
        if len(self._letters) >= MOST:
            return
        self._letters.append(letter)
        if self._loop is not None:
            with suppress(RuntimeError):  # a closed loop takes nothing any more
                self._loop.call_soon_threadsafe(self._came.set)

    async def take(self) -> T:
        """Wait for the oldest item and return it."""
        self._loop = asyncio.get_running_loop()
        while not self._letters:
            self._came.clear()
            # An item may have arrived between the check and the clear.
            if not self._letters:
                await self._came.wait()
        return self._letters.popleft()

    def empty(self) -> None:
        """Drop all items."""
        self._letters.clear()
