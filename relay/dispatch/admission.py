"""Admission of each request to an endpoint: its breaker, its throttle, and the process's slots."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from relay.clock import Clock
from relay.config.endpoint import Endpoint
from relay.dispatch.breaker import Change, CircuitBreaker
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome


class Taker(Protocol):
    """An endpoint that waits for slots."""

    def offer(self) -> bool:
        """Offer a free slot: take it with ``Slots.take`` if it is still useful. Returns whether more would be
        useful."""


class Slots:
    """At most ``most`` requests in flight, but each endpoint's first one always passes: a hung endpoint cannot starve
    the others.

    A released slot is offered to the waiting endpoints in turn, one each.
    """

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most
        self._waiting: deque[Taker] = deque()

    def take(self, *, first: bool) -> bool:
        """Whether the request may be sent; ``first`` if the endpoint has none in flight."""
        if not first and self.taken >= self._most:
            return False
        self.taken += 1
        return True

    def wait(self, taker: Taker) -> None:
        """Queue for a slot: ``offer`` is called when this taker's turn comes. It has one place in the queue."""
        if taker not in self._waiting:
            self._waiting.append(taker)

    def give_back(self) -> None:
        """Release the slot of a finished request."""
        self.taken -= 1
        while self._waiting and self.taken < self._most:
            taker = self._waiting.popleft()
            if taker.offer():
                self._waiting.append(taker)


_OVERLOADED = frozenset({429, 502, 503, 504})


def overloaded(outcome: Outcome) -> bool:
    """Whether the outcome indicates overload: a timeout, 429, 502, 503 or 504."""
    return isinstance(outcome, Failed) and (outcome.stage == "timeout" or outcome.status in _OVERLOADED)


class Throttle:
    """Limits an endpoint's requests in flight: fewer when it does not keep up, as TCP does. Pure.

    Halves the limit on overload, and raises it by about one per round of successes, up to ``most``.
    """

    def __init__(self, most: int) -> None:
        self.limit = most
        """How many requests may be in flight now."""
        self.generation = 0
        """How often the limit has halved. An attempt belongs to the generation in which it began."""
        self._most = most
        self._exact = float(most)

    def cap(self, most: int) -> None:
        """Raise or lower the highest limit. One that was not reached stays as it is."""
        if self.limit >= self._most:
            self._exact = float(most)
        self._most = most
        self.limit = min(int(self._exact), most)

    def record_success(self) -> None:
        """Record a successful attempt."""
        if self.limit < self._most:
            self._exact += 1 / self._exact
            self.limit = int(self._exact)

    def record_overload(self, generation: int) -> None:
        """Record an overload in an attempt of that generation. Older generations add no new information."""
        if generation == self.generation:
            self._exact = max(1.0, self._exact / 2)
            self.limit = min(int(self._exact), self._most)
            self.generation += 1


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """Permission to send one request. Requests of one generation share a permit, so it costs nothing."""

    generation: int
    probe: bool = False
    """Whether this is the probe that tests whether the endpoint has recovered."""


class Admission:
    """Admission for one endpoint. Without limits, it costs a few comparisons and no await."""

    def __init__(self, endpoint: Endpoint, slots: Slots, clock: Clock) -> None:
        self._slots, self._clock = slots, clock
        self._most: int | None = None
        self._in_flight = 0
        self._closed = False
        self._waiting: deque[asyncio.Future[Permit | None]] = deque()
        self.adjust(endpoint)

    def adjust(self, endpoint: Endpoint) -> None:
        """Use these settings, and discard what was observed under the previous ones."""
        most = endpoint.concurrency if self._most is None else self._most
        self._breaker, self._throttle = CircuitBreaker(endpoint.breaker), Throttle(most)
        self._permit = Permit(self._throttle.generation)
        self._probe: Permit | None = None
        self._admit()

    def cap(self, most: int) -> None:
        """Allow this many requests in flight, this process's share of the endpoint's; what was observed stays."""
        self._most = most
        self._throttle.cap(most)
        if self.shut:
            self._refuse_waiting()
        else:
            self._admit()

    def follow_rest(self, rest_ms: int) -> None:
        """Send nothing for this long at least, then one probe: another dispatcher has found that the endpoint fails."""
        if self._probe is None:
            self._breaker.follow(self._clock.steady_ms() + rest_ms)
            if self.shut:
                self._refuse_waiting()

    def follow_recovery(self) -> None:
        """Admit requests again: another dispatcher has found that the endpoint is back."""
        self._breaker.close()
        self._probe = None
        self._admit()

    @property
    def shut(self) -> bool:
        """Whether nothing may be sent and waiting is pointless."""
        if self._closed or self._most == 0:
            return True
        return not self._breaker.closed and self._breaker.open(self._clock.steady_ms())

    @property
    def probing(self) -> bool:
        """Whether a probe is needed, or in flight, to test whether the endpoint has recovered."""
        return not self._breaker.closed

    @property
    def is_calm(self) -> bool:
        """Whether everything is allowed, and nothing is in flight or waits."""
        return not (self._closed or self.probing or self._in_flight or self._waiting)

    @property
    def rest_ms(self) -> int:
        """Time left until the open breaker allows a probe."""
        return self._breaker.rest_ms(self._clock.steady_ms())

    @property
    def waiting(self) -> int:
        """How many requests wait to be allowed."""
        return len(self._waiting)

    @property
    def capacity(self) -> int:
        """How many more requests this endpoint's own limits allow now."""
        if self.shut:
            return 0
        if self.probing:
            return 0 if self._probe or self._waiting else 1
        return max(0, self._throttle.limit - self._in_flight - len(self._waiting))

    @property
    def quarter(self) -> int:
        """A share of the in-flight limit that is worth filling however many requests wait."""
        return 0 if self.shut or self.probing else max(1, self._throttle.limit // 4)

    def try_acquire(self) -> Permit | None:
        """Return a permit if one is available immediately."""
        if self._waiting or not self._has_capacity() or not self._slots.take(first=self._in_flight == 0):
            return None
        return self._take()

    async def acquire(self) -> Permit | None:
        """Wait for a permit; None if the endpoint is shut or shuts during the wait."""
        if self.shut:
            return None
        turn: asyncio.Future[Permit | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and (permit := turn.result()):
                self.release(permit)
            raise

    def record_outcome(self, permit: Permit, outcome: Outcome, *, best_effort: bool) -> Change | None:
        """Record the outcome of a request; a fault of our own says nothing.

        ``best_effort`` marks an interim, whose failure counts only if it was the probe.
        """
        if isinstance(outcome, Fault):
            return None
        ok = isinstance(outcome, Delivered)
        if ok:
            self._throttle.record_success()
        elif overloaded(outcome) and not best_effort:
            self._throttle.record_overload(permit.generation)
            self._permit = Permit(self._throttle.generation)
        now = self._clock.steady_ms()
        change: Change | None = None
        if permit is self._probe:
            change = self._breaker.probed(ok=ok, now=now)
        elif not permit.probe and (ok or not best_effort):
            change = self._breaker.count(ok=ok, now=now)
        if change in (Change.OPENED, Change.REOPENED):
            self._refuse_waiting()
        return change

    def release(self, permit: Permit) -> None:
        """The request is over, or was not made."""
        self._in_flight -= 1
        if permit is self._probe:
            self._probe = None
        self._slots.give_back()
        if self._waiting:
            self._admit()

    def close(self) -> None:
        """Admit nothing until opened; requests in flight continue."""
        self._closed = True
        self._refuse_waiting()

    def reopen(self, endpoint: Endpoint) -> None:
        """Admit requests again, with all state reset."""
        self._closed = False
        self.adjust(endpoint)

    def offer(self) -> bool:
        """See ``Taker``."""
        self._forget_cancelled()
        if self._waiting and self._has_capacity() and self._slots.take(first=self._in_flight == 0):
            self._waiting.popleft().set_result(self._take())
        self._forget_cancelled()
        return bool(self._waiting) and self._has_capacity()

    def _admit(self) -> None:
        self._forget_cancelled()
        while self._waiting and self._has_capacity():
            if not self._slots.take(first=self._in_flight == 0):
                self._slots.wait(self)
                return
            self._waiting.popleft().set_result(self._take())
            self._forget_cancelled()

    def _has_capacity(self) -> bool:
        if self._closed or self._in_flight >= self._throttle.limit:
            return False
        if self._breaker.closed:
            return True
        return self._probe is None and not self._breaker.open(self._clock.steady_ms())

    def _take(self) -> Permit:
        self._in_flight += 1
        if self._breaker.closed:
            return self._permit
        self._probe = Permit(self._throttle.generation, probe=True)
        return self._probe

    def _refuse_waiting(self) -> None:
        while self._waiting:
            if not (turn := self._waiting.popleft()).done():
                turn.set_result(None)

    def _forget_cancelled(self) -> None:
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
