"""Computes the wait before the next attempt. Pure."""

from collections.abc import Sequence


class Backoff:
    """Counts failures in a row. ``waits_s`` are the waits after the first, the second, …; the last one repeats."""

    def __init__(self, waits_s: Sequence[float]) -> None:
        self._waits_s = waits_s
        self.failures = 0

    def wait_s(self) -> float:
        """Count a failure; returns the seconds to wait before the next attempt."""
        wait_s = self._waits_s[min(self.failures, len(self._waits_s) - 1)]
        self.failures += 1
        return wait_s

    def reset(self) -> None:
        """An attempt succeeded."""
        self.failures = 0
