"""What to do with audio that comes faster than it can be heard. Pure."""

MOST_MS = 30_000
"""Audio that may wait. What is later still is of little use, and memory has an end."""
CAUGHT_UP_MS = 1_000


class Backlog:
    """Decides which frames are passed over.

    Where the machine is too busy for all that is said, each second takes longer than a second, and whoever listens
    falls ever further behind: by ``MOST_MS``, and then goes on with what is said now. One gap is better than many.
    """

    def __init__(self) -> None:
        self._catching_up = False

    def passed_over(self, waiting_ms: int) -> bool:
        """Whether the next frame is, where so much waits behind it."""
        self._catching_up = waiting_ms > (CAUGHT_UP_MS if self._catching_up else MOST_MS)
        return self._catching_up
