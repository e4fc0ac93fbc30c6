"""Circuit breaker: rests an endpoint that mostly fails. Pure.

Times are milliseconds on a monotonic clock.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from relay.config.endpoint import Breaker

_BUCKETS = 10
"""The window advances in steps of a tenth of its length, which bounds the counters under any load."""


class Change(Enum):
    """How a result changed the breaker."""

    OPENED = auto()
    REOPENED = auto()
    """The probe failed."""
    CLOSED = auto()


@dataclass(slots=True)
class _Bucket:
    number: int
    attempts: int = 0
    failed: int = 0


class CircuitBreaker:
    """Closed: every request passes. Open: none passes, until the rest ends. Half-open: one probe decides."""

    def __init__(self, rules: Breaker | None) -> None:
        """Without rules it never opens."""
        self._rules = rules
        self._buckets: deque[_Bucket] = deque()
        self._rests_until: int | None = None
        if rules is not None:
            self._width = max(1, round(rules.window.total_seconds() * 1000 / _BUCKETS))
            self._rest = round(rules.rest.total_seconds() * 1000)

    @property
    def closed(self) -> bool:
        return self._rests_until is None

    def open(self, now: int) -> bool:
        """Whether nothing may be sent, not even a probe."""
        return self._rests_until is not None and now < self._rests_until

    def rest_ms(self, now: int) -> int:
        """How long it stays open."""
        return 0 if self._rests_until is None else max(0, self._rests_until - now)

    def follow(self, until: int) -> None:
        """Stay open until then at least: another dispatcher has opened its own."""
        if self._rules is not None:
            self._rests_until = max(until, self._rests_until or 0)

    def close(self) -> None:
        """Close, and forget what was counted: the endpoint is back."""
        self._rests_until = None
        self._buckets.clear()

    def count(self, *, ok: bool, now: int) -> Change | None:
        """Record the result of an attempt that began while the breaker was closed."""
        if self._rules is None or not self.closed:
            return None
        number = now // self._width
        while self._buckets and self._buckets[0].number <= number - _BUCKETS:
            self._buckets.popleft()
        if not self._buckets or self._buckets[-1].number < number:
            self._buckets.append(_Bucket(number))
        newest = self._buckets[-1]
        newest.attempts += 1
        if ok:
            return None
        newest.failed += 1
        attempts = sum(bucket.attempts for bucket in self._buckets)
        failed = sum(bucket.failed for bucket in self._buckets)
        if attempts < self._rules.requests or failed < self._rules.failing * attempts:
            return None
        self._rests_until = now + self._rest
        return Change.OPENED

    def probed(self, *, ok: bool, now: int) -> Change:
        """Record the result of the probe. Success resets the counters; failure starts another rest."""
        if ok:
            self.close()
            return Change.CLOSED
        self._rests_until = now + self._rest
        return Change.REOPENED
