"""When an endpoint that mostly fails gets a rest. Pure.

Times are milliseconds on a clock that nobody sets.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from relay.config.endpoint import Breaker as Rules

_BUCKETS = 10
"""The window moves on by a tenth of itself: what it counts is bounded, whatever the load."""


class Change(Enum):
    """What a result did to the breaker."""

    OPENED = auto()
    REOPENED = auto()
    """The attempt that was to show whether it is over has failed."""
    CLOSED = auto()


@dataclass(slots=True)
class _Bucket:
    number: int
    attempts: int = 0
    failed: int = 0


class Breaker:
    """Closed: everything goes. Open: nothing does, for the rest. Half-open: one attempt decides."""

    def __init__(self, rules: Rules | None) -> None:
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
        """Whether nothing may be sent: not even the one attempt that decides."""
        return self._rests_until is not None and now < self._rests_until

    def rest_ms(self, now: int) -> int:
        """For how long it is still open."""
        return 0 if self._rests_until is None else max(0, self._rests_until - now)

    def count(self, *, ok: bool, now: int) -> Change | None:
        """The result of an attempt that began while it was closed."""
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
        """The result of the one attempt. A success forgets what was counted, a failure begins another rest."""
        if ok:
            self._rests_until = None
            self._buckets.clear()
            return Change.CLOSED
        self._rests_until = now + self._rest
        return Change.REOPENED
