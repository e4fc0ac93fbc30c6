"""A thread that works off what the event loop hands it, many at a time."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from relay.errors import OutboxError

Item = TypeVar("Item")

GATHER = 0.010
"""Seconds that items which can wait are gathered at most, for as many as there were last time."""
_QUIET = 0.001
"""Seconds without a new item that end the gathering, whoever is still expected."""


class Batching(Generic[Item]):
    """One thread, one batch after the other, in the order in which they were submitted.

    ``work`` gets a batch and returns an outcome for each of its items: a value, or an exception to be raised where
    the item's future is awaited. The outcomes of a batch reach the loop in one call.

    Items that can wait are gathered until there are as many as the last time: who was answered together comes back
    together. An item that comes alone, after others that did, does not wait.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[object]],
        *,
        limit: int,
        can_wait: Callable[[Item], bool] = lambda _: False,
    ) -> None:
        self._work, self._limit, self._can_wait = work, limit, can_wait
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._queue: deque[tuple[Item, asyncio.Future[Any]]] = deque()
        self._urgent = 0
        self._expected = 1
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> asyncio.Future[Any]:
        """Queue an item; the future is done after its batch. Raises ``OutboxError`` once closed."""
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._changed:
            if self._closing:
                raise OutboxError("the outbox is closed")
            self._queue.append((item, future))
            if not self._can_wait(item):
                self._urgent += 1
                self._changed.notify()
            elif len(self._queue) in (1, self._expected, self._limit):
                self._changed.notify()
        return future

    def close(self) -> None:
        """Work off what is queued, then end the thread. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            try:
                outcomes = self._work([item for item, _ in batch])
            except Exception as error:  # a bug fails those who asked, not the thread that all depend on
                outcomes = [error] * len(batch)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, [future for _, future in batch], outcomes)

    def _take(self) -> list[tuple[Item, asyncio.Future[Any]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            for _ in range(round(GATHER / _QUIET)):
                size = len(self._queue)
                if self._hurried() or self._changed.wait_for(self._hurried, _QUIET) or len(self._queue) == size:
                    break
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._limit))]
            if urgent := sum(not self._can_wait(item) for item, _ in batch):
                self._urgent -= urgent
            else:
                self._expected = max(len(batch), 1)
            return batch

    def _hurried(self) -> bool:
        return self._closing or self._urgent > 0 or len(self._queue) >= min(self._expected, self._limit)


def _resolve(futures: Sequence[asyncio.Future[Any]], outcomes: Sequence[object]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.done():  # cancelled by whoever asked
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
