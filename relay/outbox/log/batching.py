"""A thread that processes items from the event loop in batches."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from relay.errors import OutboxError

Item = TypeVar("Item")

GATHER = 0.010
"""Maximum seconds for which items that can wait are gathered."""
_QUIET = 0.001
"""Seconds without another awaited item that end the gathering, even if more are expected."""


class Haste(Enum):
    """How long an item may wait for others."""

    FIRST = auto()
    """Not at all, and by itself: before everything that waits, and without taking it along."""
    NOW = auto()
    """Not at all."""
    SOON = auto()
    """The item is awaited: wait until there are as many of its kind as last time, or none has arrived for a moment."""
    LATER = auto()
    """The item is not awaited yet: wait until any other goes, it is awaited, or the time is over."""


_Entry = tuple[Item, Haste, asyncio.Future[Any]]


class Batching(Generic[Item]):
    """One thread that processes one batch after another, in the order of submission.

    ``work`` gets a batch and returns an outcome for each item: a value, or an exception to raise where the item's
    future is awaited. The outcomes of a batch reach the loop in one call.

    Awaited items are gathered until there are as many as last time: callers that were answered together return
    together. An item that comes alone, after others that did, does not wait. The loop does the gathering: the thread
    wakes once per batch, and takes along what was submitted while it worked.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], Sequence[object]],
        *,
        limit: int,
    ) -> None:
        self._work, self._limit = work, limit
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Entry[Item]] = []
        self._awaited = 0
        """How many of the gathered items are awaited."""
        self._timer: asyncio.TimerHandle | None = None
        self._handed_over: SimpleQueue[list[_Entry[Item]] | None] = SimpleQueue()
        """None is the last item."""
        self._expected = 1
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item, haste: Haste = Haste.NOW) -> asyncio.Future[Any]:
        """Queue an item; the future is done after its batch. Raises ``OutboxError`` once closed."""
        if self._closing:
            raise OutboxError("the outbox is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        if haste is Haste.FIRST:
            self._handed_over.put([(item, haste, future)])
            return future
        self._gathered.append((item, haste, future))
        if haste is Haste.NOW or len(self._gathered) >= self._limit:
            self._hand_over()
        elif haste is Haste.SOON:
            self.hasten()
        elif self._timer is None:
            self._timer = self._loop.call_later(GATHER, self._hand_over)
        return future

    def hasten(self) -> None:
        """A gathered item is awaited now."""
        if not self._gathered:
            return
        self._awaited += 1
        if self._awaited >= self._expected:
            self._hand_over()
        elif self._awaited == 1:
            self._look_again(round(GATHER / _QUIET))

    async def aclose(self) -> None:
        """Process what is queued, then end the thread."""
        self._closing = True
        self._hand_over()
        self._handed_over.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        self._await_until(None)
        self._awaited = 0
        if self._gathered:
            self._handed_over.put(self._gathered)
            self._gathered = []

    def _look_again(self, times: int) -> None:
        self._await_until(self._loop.call_later(_QUIET, self._look, self._awaited, times - 1))

    def _look(self, before: int, times: int) -> None:
        if times and self._awaited > before:
            self._look_again(times)
        else:
            self._hand_over()

    def _await_until(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _run(self) -> None:
        waiting: deque[_Entry[Item]] = deque()
        ending = False
        while not ending or waiting:
            ending = self._take_over(waiting, ending=ending)
            most = 1 if waiting and waiting[0][1] is Haste.FIRST else self._limit
            batch = [waiting.popleft() for _ in range(min(len(waiting), most))]
            if batch:
                self._work_off(batch)

    def _take_over(self, waiting: deque[_Entry[Item]], *, ending: bool) -> bool:
        """Take everything submitted, waiting for it if there is nothing. Also returns whether that was the last."""
        while not ending:
            try:
                handed_over = self._handed_over.get(block=not waiting)
            except Empty:
                break
            if handed_over is None:
                return True
            if handed_over[0][1] is Haste.FIRST:
                waiting.extendleft(handed_over)
            else:
                waiting += handed_over
        return ending

    def _work_off(self, batch: Sequence[_Entry[Item]]) -> None:
        items = [item for item, _, _ in batch]
        hastes = [haste for _, haste, _ in batch]
        if Haste.NOW not in hastes:
            self._expected = hastes.count(Haste.SOON) or self._expected
        try:
            outcomes = self._work(items)
        except Exception as error:  # a bug fails the callers, not the thread that all of them depend on
            outcomes = [error] * len(items)
        with suppress(RuntimeError):  # the loop is closed: no task waits any more
            self._loop.call_soon_threadsafe(_resolve, [future for _, _, future in batch], outcomes)


def _resolve(futures: Sequence[asyncio.Future[Any]], outcomes: Sequence[object]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.done():  # cancelled by the caller
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
