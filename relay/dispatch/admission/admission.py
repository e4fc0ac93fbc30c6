"""Admission of each request to an endpoint: its breaker, its throttle, and the process's slots."""

import asyncio
from collections import deque
from dataclasses import dataclass

from relay.clock import Clock
from relay.config.endpoint import Endpoint
from relay.dispatch.admission.breaker import Breaker, Change
from relay.dispatch.admission.concurrency import Slots
from relay.dispatch.admission.throttle import Throttle, overloaded
from relay.dispatch.http.outcome import Delivered, Fault, Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """Permission to send one request. Requests of one generation share a permit, so it costs nothing."""

    generation: int
    probe: bool = False
    """Whether this is the probe that tests whether the endpoint has recovered."""


class Gate:
    """Admission for one endpoint. Without limits, passing it costs a few comparisons and no await."""

    def __init__(self, endpoint: Endpoint, slots: Slots, clock: Clock) -> None:
        self._slots, self._clock = slots, clock
        self._in_flight = 0
        self._closed = False
        self._waiting: deque[asyncio.Future[Ticket | None]] = deque()
        self.adjust(endpoint)

    def adjust(self, endpoint: Endpoint) -> None:
        """Use these settings, and discard what was observed under the previous ones."""
        self._breaker, self._throttle = Breaker(endpoint.breaker), Throttle(endpoint.concurrency)
        self._ticket = Ticket(self._throttle.generation)
        self._probe: Ticket | None = None
        self._admit()

    @property
    def shut(self) -> bool:
        """Whether nothing may be sent and waiting is pointless."""
        return self._closed or (not self._breaker.closed and self._breaker.open(self._clock.steady_ms()))

    @property
    def probing(self) -> bool:
        """Whether a probe is needed, or in flight, to test whether the endpoint has recovered."""
        return not self._breaker.closed

    @property
    def rest_ms(self) -> int:
        """Time left until the open breaker allows a probe."""
        return self._breaker.rest_ms(self._clock.steady_ms())

    @property
    def room(self) -> int:
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

    def try_enter(self) -> Ticket | None:
        """Return a permit if one is available immediately."""
        if self._waiting or not self._has_room() or not self._slots.take(first=self._in_flight == 0):
            return None
        return self._entered()

    async def enter(self) -> Ticket | None:
        """Wait for a permit; None if the gate is shut or shuts during the wait."""
        if self.shut:
            return None
        turn: asyncio.Future[Ticket | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and (ticket := turn.result()):
                self.leave(ticket)
            raise

    def learn(self, ticket: Ticket, outcome: Outcome, *, once: bool) -> Change | None:
        """Record the outcome of a request. Our own faults teach nothing. ``once`` marks an interim, whose failure
        counts only if it was the probe."""
        if isinstance(outcome, Fault):
            return None
        ok = isinstance(outcome, Delivered)
        if ok:
            self._throttle.eased()
        elif overloaded(outcome) and not once:
            self._throttle.strained(ticket.generation)
            self._ticket = Ticket(self._throttle.generation)
        now = self._clock.steady_ms()
        change: Change | None = None
        if ticket is self._probe:
            change = self._breaker.probed(ok=ok, now=now)
        elif not ticket.probe and (ok or not once):
            change = self._breaker.count(ok=ok, now=now)
        if change in (Change.OPENED, Change.REOPENED):
            self._turn_away()
        return change

    def leave(self, ticket: Ticket) -> None:
        """The request is over, or was not made."""
        self._in_flight -= 1
        if ticket is self._probe:
            self._probe = None
        self._slots.give_back()
        if self._waiting:
            self._admit()

    def close(self) -> None:
        """Admit nothing until opened; requests in flight continue."""
        self._closed = True
        self._turn_away()

    def reopen(self, endpoint: Endpoint) -> None:
        """Admit requests again, with all state reset."""
        self._closed = False
        self.adjust(endpoint)

    def offer(self) -> bool:
        """See ``slots.Taker``."""
        self._forget_cancelled()
        if self._waiting and self._has_room() and self._slots.take(first=self._in_flight == 0):
            self._waiting.popleft().set_result(self._entered())
        self._forget_cancelled()
        return bool(self._waiting) and self._has_room()

    def _admit(self) -> None:
        self._forget_cancelled()
        while self._waiting and self._has_room():
            if not self._slots.take(first=self._in_flight == 0):
                self._slots.wait(self)
                return
            self._waiting.popleft().set_result(self._entered())
            self._forget_cancelled()

    def _has_room(self) -> bool:
        if self._closed or self._in_flight >= self._throttle.limit:
            return False
        if self._breaker.closed:
            return True
        return self._probe is None and not self._breaker.open(self._clock.steady_ms())

    def _entered(self) -> Ticket:
        self._in_flight += 1
        if self._breaker.closed:
            return self._ticket
        self._probe = Ticket(self._throttle.generation, probe=True)
        return self._probe

    def _turn_away(self) -> None:
        while self._waiting:
            if not (turn := self._waiting.popleft()).done():
                turn.set_result(None)

    def _forget_cancelled(self) -> None:
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
