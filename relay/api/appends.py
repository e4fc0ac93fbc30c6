"""Passes on what is appended to the log, when its doorbell rings."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from relay.outbox.records import Growth, Record

MOST_STREAMS = 500
"""Maximum streams reported to a follower. If more have grown, it reads all."""
MOST_BYTES = 1 << 20
"""Bytes that are kept for a follower that has not asked. What is above must be read from the log."""

Grown = Mapping[int, Sequence[Record] | None]
"""The new records of each stream that has grown, in order; None if they must be read."""


class AppendFollower:
    """Collects what has been appended since it last asked."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop, self._woken = stop, asyncio.Event()
        self._grown: dict[int, list[Record] | None] = {}
        self._size = 0

    def ring(self, growth: Growth) -> None:
        for stream, records in growth.items():
            if len(self._grown) > MOST_STREAMS:
                break  # all are read
            self._size += sum(len(record.body) for record in records)
            kept = self._grown.setdefault(stream, [])
            if kept is not None and records and self._size <= MOST_BYTES:
                kept.extend(records)
            else:
                self._grown[stream] = None
        self._woken.set()

    async def grown(self, within_s: float) -> Grown | None:
        """What has been appended, once something has; None after ``within_s`` seconds, and for too many streams.

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
        grown, self._grown, self._size = self._grown, {}, 0
        return grown if 0 < len(grown) <= MOST_STREAMS else None


class Appends:
    """Passes on the rings of the log's doorbell: hints, which may be lost."""

    def __init__(self, stop: asyncio.Event) -> None:
        """``stop``: ends every wait."""
        self._stop, self._followers = stop, set[AppendFollower]()

    def ring(self, growth: Growth) -> None:
        """The log has grown. Called by the doorbell, on the event loop."""
        for follower in self._followers:
            follower.ring(growth)

    @contextmanager
    def followed(self) -> Iterator[AppendFollower]:
        """A follower, for as long as the block runs."""
        follower = AppendFollower(self._stop)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)
