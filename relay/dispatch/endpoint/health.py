"""Tracks an endpoint's health as its sending process sees it. Pure; wall times in epoch milliseconds."""

from dataclasses import dataclass

from relay.dispatch.admission import overloaded
from relay.dispatch.clock_jump import Jump
from relay.dispatch.http.outcome import Failed
from relay.dispatch.policy import Blame
from relay.outbox.records import EndpointState, Health

HEALTHY_MS = 10_000
"""An endpoint that accepted an event this recently is healthy: other failures at the time are the event's own."""
_NOTHING_SENT = frozenset({"dns", "egress", "connect", "tls"})
"""Stages at which the endpoint has seen nothing of the event yet."""

CLOCKS_AGREE_MS = 5_000
"""A time of another process that is further in the future than this is not believed."""

LONGEST_WAIT_MS = 86_400_000
"""The longest wait between two attempts in the default schedule: after a longer gap, the relay was not running."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """An endpoint accepts events again after it may have been down."""

    since: int | None
    """When it began to fail; None if that was so recent that only failures blamed on the endpoint count."""


class Condition:
    """Since when it fails, when it last succeeded and failed, and why; whether that is an outage."""

    def __init__(self, state: EndpointState | None = None, now_ms: int = 0) -> None:
        """Starts from the state that the log has at ``now_ms``. Time without attempts does not count as failing."""
        self.unwritten = False
        """Whether there are changes that the log does not have yet."""
        self.has_rest_changed = False
        """Whether one of them is a rest that begins or ends here: the other dispatchers wait for it."""
        self._failing_since = None
        if state and state.failing_since is not None:
            last = max(state.failing_since, state.failed_at or 0)
            self._failing_since = state.failing_since + max(0, now_ms - last - LONGEST_WAIT_MS)
        self._succeeded_at: int | None = None
        self._failed_at: int | None = None
        self._last_error: str | None = None
        self._resting_until: int | None = None
        self.recovery: Recovery | None = None
        """A recovery that has not been written to the log yet."""
        self._down = True
        """Whether a success is a recovery. The first one is: the earlier state is unknown."""
        self._failing: tuple[int, int] | None = None
        """The first event that has failed since the last success."""
        self._several = False
        """Whether another event has failed, too."""
        self._last_outage = range(0)
        if state and state.resting_until is not None:  # a restarted dispatcher clears the breaker's rest
            self.unwritten = self.has_rest_changed = True

    def succeeded(self, now_ms: int) -> None:
        began = self._failing_since
        if self._down:
            lasted = began is not None and now_ms - began >= HEALTHY_MS
            self._recovers(began if lasted else None)
            self._last_outage = range(now_ms if began is None else began, now_ms)
        self._down, self._failing, self._several = False, None, False
        self._failing_since, self._succeeded_at = None, now_ms
        self.unwritten = True

    def failed(self, failed: Failed, event: tuple[int, int], *, began_ms: int, now_ms: int, probe: bool) -> Blame:
        """Record a failed attempt that began then; ``event`` is its lane and sequence. ``probe``: the breaker was
        open."""
        if self._failing_since is None:
            self._failing_since = now_ms
        self._failed_at, self._last_error = now_ms, failed.reason
        self.unwritten = True
        self._failing = self._failing or event
        self._several |= self._failing != event
        blame = self._blame(failed, began_ms, probe=probe)
        self._down |= blame in (Blame.UNKNOWN, Blame.ENDPOINT)
        return blame

    def _blame(self, failed: Failed, began_ms: int, *, probe: bool) -> Blame:
        if probe:
            return Blame.ENDPOINT
        if began_ms in self._last_outage:
            return Blame.PAST
        if failed.stage in _NOTHING_SENT:
            return Blame.ENDPOINT
        if self._succeeded_at is not None and self._succeeded_at >= began_ms - HEALTHY_MS:
            return Blame.EVENT
        if failed.stage != "status" or overloaded(failed) or self._several:
            return Blame.ENDPOINT
        return Blame.UNKNOWN

    def _recovers(self, since: int | None) -> None:
        if self.recovery is not None and self.recovery.since is not None:
            since = self.recovery.since if since is None else min(since, self.recovery.since)
        self.recovery = Recovery(since)

    def rests(self, until: int | None, *, by_other: bool = False) -> None:
        """Record until when the breaker rests the endpoint; None ends the rest. ``by_other``: the log says so."""
        if until != self._resting_until:
            self._resting_until = until
            if not by_other:
                self.unwritten = self.has_rest_changed = True

    @property
    def resting_until(self) -> int | None:
        """Until when the breaker rests it, here or elsewhere, as far as is known."""
        return self._resting_until

    def follow(self, state: EndpointState, now_ms: int) -> None:
        """Take over what other dispatchers have written to the log.

        A success elsewhere shows that the endpoint works; failures elsewhere are kept when this one writes.
        """
        succeeded, failed = state.succeeded_at or 0, state.failed_at or 0
        if (self._succeeded_at or 0) < succeeded <= now_ms + CLOCKS_AGREE_MS:
            self._succeeded_at = succeeded
            self._failing, self._several = None, False
            if self._failing_since is not None and self._failing_since <= succeeded:
                # it may have failed again since, but not for longer
                self._failing_since = succeeded if (self._failed_at or 0) > succeeded else None
        if (self._failed_at or 0) < failed <= now_ms + CLOCKS_AGREE_MS:
            self._failed_at, self._last_error = failed, state.last_error
            if self._failing_since is None and failed > (self._succeeded_at or 0):
                self._failing_since = state.failing_since

    def failing_ms(self, now_ms: int) -> int:
        """For how long it has failed without a success; 0 if it does not fail."""
        return 0 if self._failing_since is None else now_ms - self._failing_since

    @property
    def is_calm(self) -> bool:
        """Whether it does not fail, and everything is in the log."""
        return not self.unwritten and self._failing_since is None and self.recovery is None

    def note(self, endpoint: str) -> Health:
        """What to write to the log."""
        return Health(
            endpoint, self._failing_since, self._succeeded_at, self._failed_at, self._last_error, self._resting_until,
            self.has_rest_changed,
        )  # fmt: skip

    def shift(self, jump: Jump) -> None:
        """Adjust to a wall clock that was set."""
        if self._failing_since is not None:
            self._failing_since = jump.past(self._failing_since)
        if self._succeeded_at is not None:
            self._succeeded_at = jump.past(self._succeeded_at)
        outage = self._last_outage
        self._last_outage = range(outage.start + jump.by_ms, outage.stop + jump.by_ms)
        if self._resting_until is not None:
            self.rests(self._resting_until + jump.by_ms)
