"""Finds out that the wall clock was set. Pure."""

from dataclasses import dataclass

from relay.clock import Clock
from relay.outbox.log.clock_change import UNNOTICED_MS

_TOLERANCE_MS = 2000
"""A clock that is being adjusted gently, or set by less, moves nothing."""


@dataclass(frozen=True, slots=True)
class Jump:
    by_ms: int
    """How far the clock was set; below 0 where it was set back."""
    beyond: int
    """What it would say now had it not been set, in epoch milliseconds: what is due later moves along."""

    def moved(self, at: int) -> int:
        """Where a time lies now that was noted before the jump, as far as can be told."""
        return at + self.by_ms if at > self.beyond else at

    def past(self, at: int) -> int:
        """Where a past time lies now, whether it was noted before the jump or since.

        After the clock was set back both look alike. What seems to be a moment old is taken for that: the other way
        round, it would be older than it is by all of the jump.
        """
        now = self.beyond + self.by_ms
        since = at > self.beyond or (self.by_ms < 0 and now - UNNOTICED_MS < at <= now)
        return at if since else at + self.by_ms


class ClockJumps:
    """Compares how much time the wall clock says has passed with how much has."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = clock.now_ms() - clock.steady_ms()

    def look(self) -> Jump | None:
        """The jump since the last look, if there was one. It is found again until it is ``followed``."""
        wall = self._clock.now_ms()
        ahead = wall - self._clock.steady_ms()
        by_ms = ahead - self._ahead
        if abs(by_ms) > _TOLERANCE_MS:
            return Jump(by_ms, wall - by_ms)
        self._ahead = ahead
        return None

    def followed(self, jump: Jump) -> None:
        """The schedule has moved along."""
        self._ahead += jump.by_ms
