"""Decides what to do with audio that arrives faster than it is processed. Pure."""

MOST_MS = 30_000
"""The maximum backlog. Later audio is of little use, and memory is limited."""
CAUGHT_UP_MS = 1_000


class Backlog:
    """Decides which frames are skipped.

    On an overloaded machine each second of audio takes longer than a second, and the detectors fall further and further
    behind: by ``MOST_MS`` at most, then they continue with current audio. One gap is better than many.
    """

    def __init__(self) -> None:
        self._catching_up = False

    def passed_over(self, waiting_ms: int) -> bool:
        """Whether to skip the next frame, given the backlog behind it."""
        self._catching_up = waiting_ms > (CAUGHT_UP_MS if self._catching_up else MOST_MS)
        return self._catching_up
