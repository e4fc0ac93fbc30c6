"""Tracks released lanes until their retry is due, so that they are claimed then and not before."""

import asyncio

from relay.dispatch.clock_jump import Jump

Key = tuple[int, str]
"""(stream, endpoint)"""


class RetryTimer:
    """A cache: the log is authoritative, and a lane that is missing here costs at most a sweep."""

    def __init__(self) -> None:
        self.earliest: int | None = None
        """When the first of them is due, in epoch milliseconds."""
        self.earlier = asyncio.Event()
        """Set when ``earliest`` has become earlier."""
        self._until: dict[Key, int] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._until

    def add(self, key: Key, until_ms: int) -> None:
        """The log has released this lane until then."""
        self._until[key] = until_ms
        if self.earliest is None or until_ms < self.earliest:
            self.earliest = until_ms
            self.earlier.set()

    def discard(self, key: Key) -> None:
        """The lane is held again."""
        self._until.pop(key, None)

    def shift(self, jump: Jump) -> None:
        """The wall clock was set: later due times move along."""
        self._until = {key: jump.moved(at) for key, at in self._until.items()}
        self.earliest = min(self._until.values(), default=None)
        self.earlier.set()

    def take_due(self, now_ms: int) -> bool:
        """Forget the lanes that are due; returns whether there were any."""
        if self.earliest is None or now_ms < self.earliest:
            return False
        self._until = {key: at for key, at in self._until.items() if at > now_ms}
        self.earliest = min(self._until.values(), default=None)
        return True
