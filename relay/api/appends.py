"""Wakes those who follow the log as soon as it grows."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from relay.outbox.records import Growth

MOST_STREAMS = 500
"""Streams that a wakeup names. If more have grown, it names none, and all are read."""


class Wakeup:
    """Collects which streams have grown since it last asked."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop, self._grown = stop, set[int]()
        self._woken = asyncio.Event()

    def ring(self, growth: Growth) -> None:
        self._grown.update(growth)
        self._woken.set()

    async def grown(self, within_s: float) -> set[int] | None:
        """The streams that have grown, once one has; None after ``within_s`` seconds, and for too many.

        Returns at once on a stop.
        """
        woken = asyncio.ensure_future(self._woken.wait())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({woken, stopped}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            stopped.cancel()
        self._woken.clear()
        grown, self._grown = self._grown, set()
        return grown if 0 < len(grown) <= MOST_STREAMS else None


class Appends:
    """Passes on what the log's doorbell tells: a hint, which may be lost."""

    def __init__(self, stop: asyncio.Event) -> None:
        """``stop``: ends every wait."""
        self._stop, self._followers = stop, set[Wakeup]()

    def ring(self, growth: Growth) -> None:
        """The log has grown. Called by the doorbell, on the event loop."""
        for follower in self._followers:
            follower.ring(growth)

    @contextmanager
    def followed(self) -> Iterator[Wakeup]:
        """A follower, for as long as the block runs."""
        follower = Wakeup(self._stop)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)
