"""Limits the process's requests in flight, and shares free slots between endpoints in turn."""

from collections import deque
from typing import Protocol


class Taker(Protocol):
    """An endpoint that waits for slots."""

    def offer(self) -> bool:
        """Offer a free slot: take it with ``Slots.take`` if it is still useful. Returns whether more would be
        useful."""


class Slots:
    """At most ``most`` requests in flight, but each endpoint's first one always passes: a hung endpoint cannot starve
    the others.

    A released slot is offered to the waiting endpoints in turn, one each.
    """

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most
        self._waiting: deque[Taker] = deque()

    def take(self, *, first: bool) -> bool:
        """Whether the request may be sent; ``first`` if the endpoint has none in flight."""
        if not first and self.taken >= self._most:
            return False
        self.taken += 1
        return True

    def wait(self, taker: Taker) -> None:
        """Queue for a slot: ``offer`` is called when this taker's turn comes. It has one place in the queue."""
        if taker not in self._waiting:
            self._waiting.append(taker)

    def give_back(self) -> None:
        """Release the slot of a finished request."""
        self.taken -= 1
        while self._waiting and self.taken < self._most:
            taker = self._waiting.popleft()
            if taker.offer():
                self._waiting.append(taker)
