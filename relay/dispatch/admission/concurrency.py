"""How many requests the process has in flight, and whose turn it is when one is free again."""

from collections import deque
from typing import Protocol


class Taker(Protocol):
    """An endpoint that waits for slots."""

    def offer(self) -> bool:
        """A slot is free: take it with ``Slots.take`` if it is still of use. Whether more would be."""


class Slots:
    """At most ``most`` requests in flight, but each endpoint's first one always: who hangs keeps nobody waiting.

    A slot that is given back goes to the endpoints that wait, in turn, one each.
    """

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most
        self._waiting: deque[Taker] = deque()

    def take(self, *, first: bool) -> bool:
        """Whether the request may go out; ``first`` where the endpoint has none in flight."""
        if not first and self.taken >= self._most:
            return False
        self.taken += 1
        return True

    def wait(self, taker: Taker) -> None:
        """Have ``offer`` called when it is this one's turn. It has one place in the queue."""
        if taker not in self._waiting:
            self._waiting.append(taker)

    def give_back(self) -> None:
        """A request is over."""
        self.taken -= 1
        while self._waiting and self.taken < self._most:
            taker = self._waiting.popleft()
            if taker.offer():
                self._waiting.append(taker)
