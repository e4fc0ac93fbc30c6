"""How an endpoint is doing, as the process that sends to it sees it. Pure; wall times in epoch milliseconds."""

from relay.outbox.records import EndpointState, Health


class Condition:
    """Since when it fails, when it last succeeded and failed, and why."""

    def __init__(self, state: EndpointState | None = None) -> None:
        """Goes on from what the log knows."""
        self.unwritten = False
        """Whether there is something that the log does not know yet."""
        self._failing_since = state.failing_since if state else None
        self._succeeded_at: int | None = None
        self._failed_at: int | None = None
        self._last_error: str | None = None

    def succeeded(self, now_ms: int) -> None:
        self._failing_since, self._succeeded_at = None, now_ms
        self.unwritten = True

    def failed(self, now_ms: int, reason: str) -> None:
        if self._failing_since is None:
            self._failing_since = now_ms
        self._failed_at, self._last_error = now_ms, reason
        self.unwritten = True

    def failing_ms(self, now_ms: int) -> int:
        """For how long it has failed without a success; 0 where it does not fail."""
        return 0 if self._failing_since is None else now_ms - self._failing_since

    def note(self, endpoint: str) -> Health:
        """What to write down."""
        return Health(endpoint, self._failing_since, self._succeeded_at, self._failed_at, self._last_error)

    def shift(self, by_ms: int, *, beyond: int) -> None:
        """The wall clock was set by so much when it said ``beyond``."""
        if self._failing_since is not None and self._failing_since <= beyond:
            self._failing_since += by_ms
