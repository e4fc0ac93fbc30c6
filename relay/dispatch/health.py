"""How an endpoint is doing, as the process that sends to it sees it. Pure; wall times in epoch milliseconds."""

from relay.outbox.records import EndpointState, Health

LONGEST_WAIT_MS = 86_400_000
"""Between two attempts, by the default schedule: after more than that, the relay was not running."""


class Condition:
    """Since when it fails, when it last succeeded and failed, and why."""

    def __init__(self, state: EndpointState | None = None, now_ms: int = 0) -> None:
        """Goes on from what the log knows by ``now_ms``. Time in which nobody tried is not held against it."""
        self.unwritten = False
        """Whether there is something that the log does not know yet."""
        self._failing_since = None
        if state and state.failing_since is not None:
            last = max(state.failing_since, state.failed_at or 0)
            self._failing_since = state.failing_since + max(0, now_ms - last - LONGEST_WAIT_MS)
        self._succeeded_at: int | None = None
        self._failed_at: int | None = None
        self._last_error: str | None = None
        self._resting_until: int | None = None
        if state and state.resting_until is not None:  # whoever begins anew gives it none
            self.unwritten = True

    def succeeded(self, now_ms: int) -> None:
        self._failing_since, self._succeeded_at = None, now_ms
        self.unwritten = True

    def failed(self, now_ms: int, reason: str) -> None:
        if self._failing_since is None:
            self._failing_since = now_ms
        self._failed_at, self._last_error = now_ms, reason
        self.unwritten = True

    def rests(self, until: int | None) -> None:
        """It has a rest until then, or none any more."""
        if until != self._resting_until:
            self._resting_until, self.unwritten = until, True

    def failing_ms(self, now_ms: int) -> int:
        """For how long it has failed without a success; 0 where it does not fail."""
        return 0 if self._failing_since is None else now_ms - self._failing_since

    def note(self, endpoint: str) -> Health:
        """What to write down."""
        return Health(
            endpoint, self._failing_since, self._succeeded_at, self._failed_at, self._last_error, self._resting_until
        )

    def shift(self, by_ms: int, *, beyond: int) -> None:
        """The wall clock was set by so much when it said ``beyond``."""
        if self._failing_since is not None and self._failing_since <= beyond:
            self._failing_since += by_ms
        if self._resting_until is not None:
            self.rests(self._resting_until + by_ms)
