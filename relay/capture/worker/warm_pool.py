"""Sizes the pool of ready job processes by recent simultaneous room starts, bounded by memory."""

from collections import deque
from pathlib import Path

import psutil

LEAST = 4
"""The size at the start, before any data."""

MOST = 16
"""The maximum, whatever the memory."""

PROCESS_MB = 30.0
"""The private memory of a ready process, where it cannot be measured: the figure with Silero."""

MEMORY_SHARE = 0.25
"""The share of the memory free at the start that ready processes may use."""

_REMEMBERED_S = 3600.0
_BURST_S = 10.0
"""Rooms that start within this time count as simultaneous: replacements for used processes take some seconds."""
_QUIET_S = 3.0
"""The pause after a room has started: it needs the processors more than the next one does."""


def bound(free_mb: float, process_mb: float) -> int:
    """How many processes of that size fit. At least one does."""
    return max(1, min(MOST, int(free_mb * MEMORY_SHARE / process_mb)))


def free_mb(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """The free memory of this machine, or of this container if that is less."""
    free: float = psutil.virtual_memory().available
    try:
        limit, used = int((cgroup / "memory.max").read_text()), int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free / 2**20
    return min(free, max(0, limit - used)) / 2**20


def process_mb(pid: int | None) -> float:
    """The private memory of a process."""
    try:
        return float(psutil.Process(pid).memory_full_info().uss) / 2**20 if pid else PROCESS_MB
    except psutil.Error:
        return PROCESS_MB


class WarmPool:
    """Decides the pool's size. Times are seconds of one monotonic clock."""

    def __init__(self, most: int) -> None:
        self.most = most
        """The maximum pool size."""
        self._began: deque[float] = deque(maxlen=1000)

    def room_began(self, now: float) -> None:
        """A process is about to be used."""
        self._began.append(now)

    def target(self, now: float) -> int:
        """The pool size now; 0 while rooms start, unless they keep starting."""
        while self._began and now - self._began[0] > _REMEMBERED_S:
            self._began.popleft()
        if self._beginning(now):
            return 0
        return min(self.most, max(LEAST, self._most_at_once()))

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
