"""What a request passes before it goes out: breaker, throttle, the process's slots, and all three together."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from relay.config.endpoint import Breaker as Rules
from relay.dispatch.admission import Admission, Permit, Slots, Throttle, overloaded
from relay.dispatch.breaker import Change, CircuitBreaker
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome
from tests.support.builders import endpoint
from tests.support.outbox.outbox_store import HandClock

RULES = Rules(requests=10, failing=0.7, window=timedelta(minutes=5), rest=timedelta(seconds=30))
DELIVERED, DOWN = Delivered(200, 1.0), Failed("status", 1.0, status=500)


def count(breaker: CircuitBreaker, results: str, now: int = 0) -> list[Change | None]:
    return [breaker.count(ok=result == "+", now=now) for result in results]


def test_a_breaker_opens_at_the_tenth_attempt_of_which_seven_have_failed() -> None:
    breaker = CircuitBreaker(RULES)
    assert count(breaker, "+++------") == [None] * 9
    assert count(breaker, "-") == [Change.OPENED]
    assert breaker.open(29_999)
    assert not breaker.open(30_000)
    assert not breaker.closed


def test_a_breaker_stays_closed_below_its_share() -> None:
    breaker = CircuitBreaker(RULES)
    assert set(count(breaker, "++++------" * 20)) == {None}


def test_what_failed_before_the_window_does_not_count() -> None:
    breaker = CircuitBreaker(RULES)
    count(breaker, "---------", now=0)
    assert count(breaker, "-", now=300_000) == [None]
    count(breaker, "--------", now=420_000)
    assert count(breaker, "-", now=599_999) == [Change.OPENED]


def test_a_success_closes_it_and_forgets_and_a_failure_opens_it_again() -> None:
    breaker = CircuitBreaker(RULES)
    count(breaker, "----------")
    assert breaker.probed(ok=False, now=30_000) is Change.REOPENED
    assert breaker.open(59_999)
    assert breaker.probed(ok=True, now=60_000) is Change.CLOSED
    assert breaker.closed
    assert count(breaker, "-" * 9, now=60_000) == [None] * 9


def test_what_began_before_it_opened_decides_nothing() -> None:
    breaker = CircuitBreaker(RULES)
    count(breaker, "----------")
    assert count(breaker, "+-", now=31_000) == [None, None]
    assert not breaker.closed


def test_without_rules_it_never_opens() -> None:
    breaker = CircuitBreaker(None)
    assert set(count(breaker, "-" * 1000)) == {None}
    assert breaker.closed


def test_a_wave_of_failures_halves_the_limit_once() -> None:
    throttle = Throttle(16)
    for _ in range(16):
        throttle.record_overload(0)
    assert (throttle.limit, throttle.generation) == (8, 1)
    throttle.record_overload(1)
    assert throttle.limit == 4
    for generation in range(2, 9):
        throttle.record_overload(generation)
    assert throttle.limit == 1


def test_the_limit_grows_by_one_a_round_and_never_beyond_what_is_configured() -> None:
    throttle = Throttle(4)
    throttle.record_overload(0)
    throttle.record_overload(1)
    limits = []
    for _ in range(12):
        throttle.record_success()
        limits.append(throttle.limit)
    assert limits == [2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("outcome", "sign"),
    [
        (Failed("timeout", 1.0), True),
        *((Failed("status", 1.0, status=status), True) for status in (429, 502, 503, 504)),
        *((Failed("status", 1.0, status=status), False) for status in (400, 404, 500)),
        (Failed("connect", 1.0), False),
        (DELIVERED, False),
        (Fault(1.0, "no memory"), False),
    ],
)
def test_signs_of_too_much_at_once(outcome: Outcome, sign: bool) -> None:
    assert overloaded(outcome) is sign


class At:
    """An admission, and requests that come to it."""

    def __init__(self, slots: Slots | None = None, clock: HandClock | None = None, **settings: Any) -> None:
        self.clock = clock or HandClock()
        self.endpoint = endpoint(**settings)
        self.admission = Admission(self.endpoint, slots or Slots(256), self.clock)
        self.entered: list[Permit] = []
        self.turned_away = 0
        self.requests: list[asyncio.Task[None]] = []

    async def come(self, count: int) -> int:
        """So many more requests; how many got in at once."""
        before = len(self.entered)
        self.requests += [asyncio.create_task(self._come()) for _ in range(count)]
        await self.settle()
        return len(self.entered) - before

    async def settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def end(self, outcome: Outcome | None = DELIVERED, *, best_effort: bool = False) -> int:
        """The longest request is over; how many get in for it."""
        before = len(self.entered)
        permit = self.entered.pop(0)
        if outcome is not None:
            self.admission.record_outcome(permit, outcome, best_effort=best_effort)
        self.admission.release(permit)
        await self.settle()
        return len(self.entered) - before + 1

    async def _come(self) -> None:
        permit = self.admission.try_acquire() or await self.admission.acquire()
        if permit is None:
            self.turned_away += 1
        else:
            self.entered.append(permit)


class Waiting:
    """An endpoint that has a request in flight and could use so many slots more."""

    def __init__(self, name: str, slots: Slots, more: int, turns: list[str]) -> None:
        self.name, self.slots, self.more, self.turns = name, slots, more, turns

    def offer(self) -> bool:
        assert self.slots.take(first=False)
        self.turns.append(self.name)
        self.more -= 1
        return self.more > 0


def test_a_freed_slot_goes_to_the_endpoints_in_turn_and_not_to_the_first_in_line() -> None:
    slots, turns = Slots(4), list[str]()
    assert [slots.take(first=False) for _ in range(5)] == [True] * 4 + [False]
    for name, more in (("long", 5), ("short", 1), ("other", 2)):
        waiting = Waiting(name, slots, more, turns)
        slots.wait(waiting)
        slots.wait(waiting)
    for _ in range(6):
        slots.give_back()
    assert turns == ["long", "short", "other", "long", "other", "long"]


async def test_the_first_request_to_an_endpoint_is_let_through_whatever_the_others_hold() -> None:
    slots = Slots(2)
    hanging = [At(slots, concurrency=2) for _ in range(20)]
    for each in hanging:
        await each.come(2)
    assert all(each.entered for each in hanging)
    healthy = At(slots)
    for _ in range(50):
        assert await healthy.come(1) == 1
        await healthy.end()


async def test_never_more_in_flight_than_the_process_may() -> None:
    slots = Slots(8)
    ends = [At(slots) for _ in range(3)]
    for each in ends:
        await each.come(16)
    assert slots.taken == 8 + 2
    for _ in range(40):
        each = max(ends, key=lambda end: len(end.entered))
        await each.end()
        assert slots.taken <= 8 + 2
    while any(each.entered for each in ends):
        await next(each for each in ends if each.entered).end()
    assert slots.taken == 0
    assert all(request.done() for each in ends for request in each.requests)


async def test_fewer_get_in_after_a_sign_of_too_much() -> None:
    at = At(concurrency=4, breaker=None)
    assert await at.come(8) == 4
    for _ in range(4):
        await at.end(Failed("timeout", 1.0))
    assert len(at.entered) == 2


async def test_an_open_breaker_turns_everybody_away_and_lets_one_in_after_the_rest() -> None:
    at = At(concurrency=16, breaker=RULES)
    assert await at.come(20) == 16
    for _ in range(10):
        await at.end(DOWN)
    assert at.admission.shut
    inside = len(at.entered)
    assert await at.come(1) == 0
    assert at.turned_away == 20 + 1 - 10 - inside
    for _ in range(inside):
        await at.end(None)
    at.clock.at += 30_000
    assert not at.admission.shut
    assert await at.come(5) == 1
    assert at.entered[0].probe
    assert await at.end(DOWN) == 0
    assert at.admission.shut
    at.clock.at += 30_000
    assert await at.come(5) == 1
    assert await at.end(DELIVERED) == 4
    assert not at.admission.probing


async def test_a_probe_that_was_not_made_leaves_its_place_to_the_next() -> None:
    at = At(breaker=RULES)
    for _ in range(10):
        await at.come(1)
        await at.end(DOWN)
    at.clock.at += 30_000
    assert await at.come(2) == 1
    assert await at.end(None) == 1
    assert at.entered[0].probe
    assert await at.end(Fault(1.0, "no memory")) == 0
    assert at.admission.probing
    assert not at.admission.shut


async def test_interims_and_our_own_faults_open_nothing_but_a_probe_counts_whatever_it_is() -> None:
    at = At(breaker=RULES)
    for _ in range(30):
        await at.come(1)
        await at.end(DOWN, best_effort=True)
        await at.come(1)
        await at.end(Fault(1.0, "no memory"))
    assert not at.admission.shut
    for _ in range(10):
        await at.come(1)
        await at.end(DOWN)
    at.clock.at += 30_000
    await at.come(1)
    await at.end(DOWN, best_effort=True)
    assert at.admission.shut


async def test_an_interim_that_was_too_much_slows_nothing_else_down() -> None:
    at = At(breaker=RULES)
    await at.come(1)
    await at.end(Failed("timeout", 1.0), best_effort=True)
    assert at.admission.capacity == 16
    await at.come(1)
    await at.end(Failed("timeout", 1.0))
    assert at.admission.capacity == 8


async def test_what_began_before_the_breaker_opened_is_no_probe() -> None:
    at = At(breaker=RULES)
    await at.come(11)
    for _ in range(10):
        await at.end(DOWN)
    at.clock.at += 30_000
    await at.come(1)
    await at.end(DELIVERED)
    assert at.admission.probing


async def test_who_gives_up_waiting_takes_no_slot_along() -> None:
    slots = Slots(1)
    at, other = At(slots), At(slots)
    await at.come(3)
    at.requests[1].cancel()
    await at.settle()
    at.admission.release(at.entered.pop())
    at.requests[2].cancel()  # it is its turn, and it does not know yet
    await asyncio.gather(*at.requests, return_exceptions=True)
    assert at.entered == []
    assert slots.taken == 0
    assert await other.come(1) == 1
