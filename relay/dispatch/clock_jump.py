"""Detects that the wall clock was set. Pure."""

from dataclasses import dataclass

from relay.clock import Clock
from relay.outbox.log.clock_change import UNNOTICED_MS

_TOLERANCE_MS = 2000
"""Smaller changes, and gradual adjustment (slewing), are ignored."""


@dataclass(frozen=True, slots=True)
class Jump:
    by_ms: int
    """How far the clock was set; negative if it was set back."""
    beyond: int
    """What the clock would say now had it not been set, in epoch milliseconds. Later due times move along."""

    def moved(self, at: int) -> int:
        """Convert a time noted before the jump to the new clock, as far as possible."""
        return at + self.by_ms if at > self.beyond else at

    def past(self, at: int) -> int:
        """Convert a past time, noted before or after the jump, to the new clock.

        After the clock was set back, the two cannot be distinguished. A time that seems to be a moment old is taken as
        new: the opposite choice would make it too old by the whole jump.
        """
        now = self.beyond + self.by_ms
        since = at > self.beyond or (self.by_ms < 0 and now - UNNOTICED_MS < at <= now)
        return at if since else at + self.by_ms


class ClockJumps:
    """Compares the wall clock's elapsed time with the real elapsed time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = clock.now_ms() - clock.steady_ms()

    def poll(self) -> Jump | None:
        """The jump since the last look, if any. It is reported again until it is ``followed``."""
        wall = self._clock.now_ms()
        ahead = wall - self._clock.steady_ms()
        by_ms = ahead - self._ahead
        if abs(by_ms) > _TOLERANCE_MS:
            return Jump(by_ms, wall - by_ms)
        self._ahead = ahead
        return None

    def followed(self, jump: Jump) -> None:
        """Mark the jump as applied to the schedule."""
        self._ahead += jump.by_ms
