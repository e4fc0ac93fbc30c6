"""How many job processes wait for rooms: as many as rooms have begun at once, bounded by memory. Pure."""

from collections import deque

LEAST = 4
"""Kept from the start, before anything was seen."""

MOST = 16
"""Kept at most, whatever the memory."""

PROCESS_MB = 40
"""Memory that a waiting process has to itself: 29 MB was measured with Silero, and its first room adds to it."""

MEMORY_SHARE = 0.25
"""Of the memory that is available at the start, what may wait for rooms."""

_REMEMBERED_S = 3600.0
_BURST_S = 10.0
"""Rooms that begin within this time begin together: processes that replace the taken ones take some seconds."""
_QUIET_S = 1.0
"""After a room has begun: it needs the processors now, more than the next one does."""


def bound(available_mb: float, wanted: int | None) -> int:
    """How many processes may wait. ``wanted``: the operator's word; at least one is kept."""
    if wanted is not None:
        return wanted
    return max(1, min(MOST, int(available_mb * MEMORY_SHARE / PROCESS_MB)))


class WarmPool:
    """Times are seconds of one monotonic clock."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._began: deque[float] = deque(maxlen=1000)

    def room_began(self, now: float) -> None:
        """A process is about to be taken."""
        self._began.append(now)

    def target(self, now: float) -> int:
        """How many processes are to wait now; 0 while rooms begin, unless they go on beginning."""
        while self._began and now - self._began[0] > _REMEMBERED_S:
            self._began.popleft()
        if self._beginning(now):
            return 0
        return min(self._most, max(LEAST, self._most_at_once()))

    def _beginning(self, now: float) -> bool:
        if not self._began or now - self._began[-1] >= _QUIET_S:
            return False
        first = next(began for began in self._began if self._began[-1] - began <= _BURST_S)
        return now - first < _BURST_S / 2

    def _most_at_once(self) -> int:
        most, first, times = 0, 0, list(self._began)
        for last, at in enumerate(times):
            while at - times[first] > _BURST_S:
                first += 1
            most = max(most, last - first + 1)
        return most
