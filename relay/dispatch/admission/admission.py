"""What every request to an endpoint passes: its breaker, its throttle, and the process's slots."""

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
    """Leave to send one request. Those of one generation share theirs, so that it costs nothing."""

    generation: int
    probe: bool = False
    """Whether it is the one attempt that shows whether the endpoint is back."""


class Gate:
    """One endpoint's. Where nothing limits, passing it is a few comparisons and no await."""

    def __init__(self, endpoint: Endpoint, slots: Slots, clock: Clock) -> None:
        self._slots, self._clock = slots, clock
        self._in_flight = 0
        self._closed = False
        self._waiting: deque[asyncio.Future[Ticket | None]] = deque()
        self.adjust(endpoint)

    def adjust(self, endpoint: Endpoint) -> None:
        """Go by these settings, and forget what was seen with the former ones."""
        self._breaker, self._throttle = Breaker(endpoint.breaker), Throttle(endpoint.concurrency)
        self._ticket = Ticket(self._throttle.generation)
        self._probe: Ticket | None = None
        self._admit()

    @property
    def shut(self) -> bool:
        """Whether nothing may be sent, and it is of no use to wait."""
        return self._closed or (not self._breaker.closed and self._breaker.open(self._clock.steady_ms()))

    @property
    def probing(self) -> bool:
        """Whether one attempt is to show, or shows just now, whether the endpoint is back."""
        return not self._breaker.closed

    @property
    def rest_ms(self) -> int:
        """How much is left of the rest that the breaker gives it."""
        return self._breaker.rest_ms(self._clock.steady_ms())

    @property
    def room(self) -> int:
        """How many more requests may go out now, as far as this endpoint is concerned."""
        if self.shut:
            return 0
        if self.probing:
            return 0 if self._probe or self._waiting else 1
        return max(0, self._throttle.limit - self._in_flight - len(self._waiting))

    @property
    def quarter(self) -> int:
        """A share of what may be in flight that is always worth having, were there ever so many who wait."""
        return 0 if self.shut or self.probing else max(1, self._throttle.limit // 4)

    def try_enter(self) -> Ticket | None:
        """Leave to send, if it can be had at once."""
        if self._waiting or not self._has_room() or not self._slots.take(first=self._in_flight == 0):
            return None
        return self._entered()

    async def enter(self) -> Ticket | None:
        """Leave to send, when it is this one's turn; None where the gate is shut, or is while it waits."""
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
        """What the request came to. Nothing is learned from our own fault; ``once`` marks an interim, whose failure
        counts only where it was to show whether the endpoint is back."""
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
        """Let nothing through until opened; what is in flight goes on."""
        self._closed = True
        self._turn_away()

    def reopen(self, endpoint: Endpoint) -> None:
        """Let requests through again, as if nothing had been."""
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
