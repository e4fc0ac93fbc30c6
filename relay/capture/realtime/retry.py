"""Tracks the failures of a realtime model's sessions, and decides which are outages."""

from relay.capture.audio.frame_metadata import to_ms
from relay.capture.health.outages import Outages
from relay.events.source import SourceFailure

_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The delay before a session is reopened, after the first failure in a row, the second, …; the last one repeats."""


class Attempts:
    """Counts failures in a row. Times are seconds of any monotonic clock.

    A failure that the first retry resolves is not reported as an outage, unless the model refused, or had been silent.
    That a model misses speech is a guess, and reported when the next session misses it too.
    """

    def __init__(self, name: str, outages: Outages) -> None:
        self._name = name
        self._outages = outages
        self._failures = 0
        self._failed_at = 0.0
        self._deaf_since: float | None = None
        self._missed = 0
        self.wait_until = 0.0
        """When the next session may be opened."""

    def failed(self, now: float, reason: SourceFailure, what: str, *, since_s: float = 0.0) -> None:
        """A session ended ``since_s`` seconds ago."""
        self._failed_at = self._failed_at if self._failures else now - since_s
        self.wait_until = now + _WAITS_S[min(self._failures, len(_WAITS_S) - 1)]
        self._failures += 1
        if self._failures > 1 or reason in ("refused", "stalled"):
            self._tell(reason, f"{what}; it is tried again until it answers", now - self._failed_at)

    def deaf(self, now: float) -> None:
        """A session that answers missed likely speech."""
        if self._deaf_since is None:
            self._deaf_since = now
        else:
            what = "hears nothing in what sounds like speech; it is tried again until it does"
            self._tell("stalled", what, now - self._deaf_since)

    def missed(self, samples: int) -> None:
        """This much audio was sent to no session."""
        self._missed += samples

    def good(self) -> None:
        """The session is good."""
        self._failures = 0
        if self._deaf_since is None:
            self._outages.up("realtime", to_ms(self._missed))
            self._missed = 0

    def hears(self) -> None:
        """The session has reported speech."""
        self._deaf_since = None
        self.good()

    def _tell(self, reason: SourceFailure, what: str, since_s: float) -> None:
        self._outages.down(
            "realtime", reason, f"the realtime model {self._name} {what}", since_ms=round(since_s * 1000)
        )
