"""What follows from an outcome."""

from datetime import timedelta
from typing import Any

import pytest

from relay.config.endpoint import Retry
from relay.dispatch.http.outcome import Delivered, Failed, Fault
from relay.dispatch.policy import Blame, Dead, Disable, Park, RetryAt, Settle, Verdict, parse_retry_after
from tests.support.dispatch.verdicts import decide

NOW = 1_800_000_000_000
RETRY = Retry(schedule=(timedelta(seconds=1), timedelta(seconds=5), timedelta(hours=2)))
DOWN = Failed("status", 3.0, status=500)


def middle() -> float:
    return 0.5


def test_delivered_is_settled() -> None:
    assert decide(Delivered(200, 1.0), attempts=2, now_ms=NOW, retry=RETRY) == Settle(delivered=True)


@pytest.mark.parametrize(("attempts", "wait_ms"), [(0, 1_000), (1, 5_000), (2, 7_200_000)])
def test_waits_follow_the_schedule(attempts: int, wait_ms: int) -> None:
    verdict = decide(DOWN, attempts=attempts, now_ms=NOW, retry=RETRY, dice=middle)
    assert verdict == RetryAt(NOW + wait_ms, attempts + 1, NOW)


def test_after_the_last_wait_the_event_is_dead() -> None:
    assert decide(DOWN, attempts=3, now_ms=NOW, retry=RETRY) == Dead(4, "status 500")


def test_an_empty_schedule_tries_once() -> None:
    assert decide(DOWN, attempts=0, now_ms=NOW, retry=Retry(schedule=())) == Dead(1, "status 500")


@pytest.mark.parametrize(("dice", "wait_ms"), [(0.0, 800), (0.5, 1_000), (1.0, 1_200)])
def test_jitter_is_up_to_a_fifth_both_ways(dice: float, wait_ms: int) -> None:
    assert decide(DOWN, attempts=0, now_ms=NOW, retry=RETRY, dice=lambda: dice) == RetryAt(NOW + wait_ms, 1, NOW)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [
        ("60", 60_000),
        ("0", 1_000),
        ("86400", 3_600_000),
        ("99999999999999999999999", 3_600_000),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60_000),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 1_000),
        ("soon", 1_000),
        ("", 1_000),
    ],
)
def test_retry_after_is_honoured_between_the_schedule_and_an_hour(status: int, header: str, wait_ms: int) -> None:
    outcome = Failed("status", 1.0, status=status, retry_after=header)
    verdict = decide(outcome, attempts=0, now_ms=NOW, retry=RETRY, dice=middle)
    assert verdict == RetryAt(NOW + wait_ms, 1, NOW, asked=wait_ms != 1_000)


def test_retry_after_does_not_shorten_a_late_wait() -> None:
    outcome = Failed("status", 1.0, status=429, retry_after="60")
    verdict = decide(outcome, attempts=2, now_ms=NOW, retry=RETRY, dice=middle)
    assert verdict == RetryAt(NOW + 7_200_000, 3, NOW, asked=True)


def test_retry_after_counts_only_where_it_means_something() -> None:
    outcome = Failed("status", 1.0, status=500, retry_after="600")
    assert decide(outcome, attempts=0, now_ms=NOW, retry=RETRY, dice=middle) == RetryAt(NOW + 1_000, 1, NOW)


def test_a_date_without_a_zone_is_utc() -> None:
    assert parse_retry_after("Fri, 15 Jan 2027 08:01:00 -0000", NOW) == 60_000


def test_our_own_fault_is_not_charged() -> None:
    for attempts in (0, 2, 3):
        verdict = decide(Fault(1.0, "Too many open files"), attempts=attempts, now_ms=NOW, retry=RETRY, dice=middle)
        assert verdict == RetryAt(NOW + 1_000, attempts)


@pytest.mark.parametrize("outcome", [DOWN, Failed("timeout", 15_000.0), Fault(1.0, "no memory")])
def test_an_interim_has_one_try(outcome: Failed | Fault) -> None:
    assert decide(outcome, attempts=0, now_ms=NOW, retry=RETRY, best_effort=True) == Settle(delivered=False)


def test_the_default_schedule_gives_up_after_twelve_attempts() -> None:
    assert isinstance(decide(DOWN, attempts=10, now_ms=NOW, retry=Retry()), RetryAt)
    assert isinstance(decide(DOWN, attempts=11, now_ms=NOW, retry=Retry()), Dead)


GONE = Failed("status", 1.0, status=410)
PARKING = Retry(
    schedule=(timedelta(seconds=1), timedelta(seconds=30), timedelta(hours=2)),
    park_after=timedelta(minutes=5),
    jitter=0,
)


@pytest.mark.parametrize("best_effort", [False, True])
def test_an_endpoint_that_is_gone_is_left_whatever_the_event(best_effort: bool) -> None:
    assert decide(GONE, attempts=7, now_ms=NOW, retry=RETRY, best_effort=best_effort) == Disable("status 410")


def failed(outcome: Failed = DOWN, *, attempts: int, since: int, **settings: Any) -> Verdict:
    return decide(
        outcome, attempts=attempts, now_ms=NOW, retry=PARKING, failing_since=since, **{"parks": True, **settings}
    )


def test_a_head_that_has_failed_for_long_is_parked_with_its_schedule() -> None:
    assert failed(attempts=2, since=NOW - 300_000) == Park(NOW + 7_200_000, 3, "status 500")


def test_a_retry_behind_the_parking_time_is_pulled_in() -> None:
    assert failed(attempts=2, since=NOW - 31_000) == RetryAt(NOW + 269_000, 3, NOW - 31_000)
    assert failed(attempts=1, since=NOW - 1_000) == RetryAt(NOW + 30_000, 2, NOW - 1_000)


def test_without_parking_the_head_waits_as_long_as_the_schedule_says() -> None:
    assert failed(attempts=2, since=NOW - 900_000, parks=False) == RetryAt(NOW + 7_200_000, 3, NOW - 900_000)


def test_an_endpoint_that_asks_for_longer_has_the_head_parked_at_once() -> None:
    busy = Failed("status", 1.0, status=503, retry_after="600")
    assert failed(busy, attempts=0, since=NOW) == Park(NOW + 600_000, 1, "status 503", asked=True)
    assert failed(busy, attempts=0, since=NOW, parks=False) == RetryAt(NOW + 600_000, 1, NOW, asked=True)


def test_an_endpoint_that_asks_for_less_than_the_parking_time_is_tried_then() -> None:
    busy = Failed("status", 1.0, status=429, retry_after="60")
    assert failed(busy, attempts=2, since=NOW - 200_000) == RetryAt(NOW + 100_000, 3, NOW - 200_000, asked=True)


@pytest.mark.parametrize("since", [NOW - 31_000, NOW - 300_000])
@pytest.mark.parametrize("attempts", [2, 3])
def test_an_outage_parks_nothing_kills_nothing_and_waits_for_the_rest_at_most(attempts: int, since: int) -> None:
    verdict = failed(attempts=attempts, since=since, blame=Blame.ENDPOINT, rest_ms=30_000)
    assert verdict == RetryAt(NOW + 30_000, attempts, since, outage=True)


def test_an_outage_uses_up_only_the_steps_that_are_shorter_than_the_rest() -> None:
    first = decide(DOWN, attempts=0, now_ms=NOW, retry=RETRY, dice=middle, blame=Blame.ENDPOINT)
    assert first == RetryAt(NOW + 1_000, 1, NOW, outage=True)
    third = decide(DOWN, attempts=2, now_ms=NOW, retry=RETRY, dice=middle, blame=Blame.ENDPOINT)
    assert third == RetryAt(NOW + 30_000, 2, NOW, outage=True)
    hours = Retry(schedule=(timedelta(hours=1),), jitter=0)
    verdict = decide(DOWN, attempts=0, now_ms=NOW, retry=hours, blame=Blame.ENDPOINT)
    assert verdict == RetryAt(NOW + 30_000, 1, NOW, outage=True)


def test_a_schedule_that_is_shorter_than_an_outage_is_used_up_in_it() -> None:
    soon = Retry(schedule=(timedelta(seconds=1),) * 3)
    assert decide(DOWN, attempts=3, now_ms=NOW, retry=soon, blame=Blame.ENDPOINT) == Dead(4, "status 500")
    assert decide(DOWN, attempts=0, now_ms=NOW, retry=Retry(schedule=()), blame=Blame.ENDPOINT) == Dead(1, "status 500")


def test_an_endpoint_that_is_down_is_still_left_alone_for_as_long_as_it_asks() -> None:
    busy = Failed("status", 1.0, status=503, retry_after="600")
    verdict = failed(busy, attempts=2, since=NOW - 300_000, blame=Blame.ENDPOINT)
    assert verdict == RetryAt(NOW + 600_000, 2, NOW - 300_000, outage=True, asked=True)


def test_what_failed_in_an_outage_that_is_over_is_tried_again_at_once() -> None:
    verdict = failed(attempts=2, since=NOW - 300_000, blame=Blame.PAST)
    assert verdict == RetryAt(NOW + 1_000, 2, NOW - 300_000, outage=True)


def test_an_event_that_fails_alone_is_parked_and_due_when_its_endpoint_recovers() -> None:
    verdict = failed(attempts=2, since=NOW - 300_000, blame=Blame.UNKNOWN)
    assert verdict == Park(NOW + 7_200_000, 3, "status 500", outage=True)


def test_a_head_whose_schedule_is_used_up_is_dead_and_not_parked() -> None:
    assert failed(attempts=3, since=NOW - 300_000) == Dead(4, "status 500")


def test_our_own_fault_parks_nothing() -> None:
    verdict = failed(Fault(1.0, "no memory"), attempts=2, since=NOW - 900_000)  # type: ignore[arg-type]  # no failure
    assert verdict == RetryAt(NOW + 1_000, 2, NOW - 900_000)


def test_no_lane_is_held_up_for_longer_than_the_parking_time() -> None:
    at, attempts, since = NOW, 0, None
    while isinstance(
        verdict := decide(DOWN, attempts=attempts, now_ms=at, retry=Retry(), failing_since=since, parks=True), RetryAt
    ):
        at, attempts, since = verdict.at, verdict.attempts, verdict.failing_since
    assert isinstance(verdict, Park)
    assert at == NOW + 300_000
