"""Endpoints that are disabled and enabled, and how they are doing."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from relay.config.endpoint import Retry
from relay.dispatch.endpoint.health import Condition, Recovery
from relay.dispatch.http.outcome import Failed, Stage
from relay.dispatch.policy import Blame
from relay.outbox.records import EndpointState, Health
from tests.support.builders import EPOCH_MS, a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, row, until
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver
from tests.support.outbox.outbox_store import HandClock

SWEEPS: dict[str, Any] = {"sweep_seconds": 0.02}
HOUR = timedelta(hours=1)
HOURLY: dict[str, Any] = {
    "retry": Retry(schedule=(HOUR,) * 100, jitter=0),
    "order": "strict",
    "breaker": None,
    "disable_after": timedelta(hours=24),
}


def disabled(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(r.levelname, r.message.split(":")[0]) for r in caplog.records if "is disabled" in r.message]


async def test_an_endpoint_that_is_gone_is_left_at_once_and_the_event_stays(
    log: MemoryLog, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda _: Answer(410)
    async with dispatching(log, endpoint(receiver.url, concurrency=1), **SWEEPS) as (_, lanes):
        for name in "ABCDE":
            log.append(log.open(), a_record(1, stream=name))
        await until(lambda: log.states["crm"].disabled_at is not None)
        await until(lambda: all(r.owner is None for r in log.rows))
        sweeps = lanes.calls["endpoint_states"]
        log.append(log.open(), a_record(1, stream="F"))
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 3)
        assert len(receiver.requests) == 1
    assert log.states["crm"].disabled_because == "gone"
    assert log.states["crm"].last_error == "status 410"
    assert [(r.cursor, r.attempts, r.next_at is not None) for r in log.rows] == [(0, 0, True)] * 6
    assert (len(log.dead), len(log.parked)) == (0, 0)
    assert disabled(caplog) == [("ERROR", "endpoint crm is disabled (gone; status 410)")]


async def test_an_endpoint_that_is_enabled_again_gets_what_it_missed_in_order(
    log: MemoryLog, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(410)
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (dispatcher, _):
        log.append(log.open(), a_record(1), a_record(2))
        await until(lambda: log.states["crm"].disabled_at is not None)
        receiver.answer = lambda _: Answer()
        log.enable("crm")
        await until(lambda: counted(dispatcher, "delivered") == 2)
        assert dispatcher.metrics.rings_lost.value() == 0
    assert [r.id for r in receiver.requests] == ["evt_A_1", "evt_A_1", "evt_A_2"]


async def test_an_endpoint_that_somebody_else_disabled_is_left_within_a_sweep(
    log: MemoryLog, clock: HandClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (dispatcher, lanes):
        stream = log.open()
        log.append(stream, a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        log.states["crm"] = replace(log.states["crm"], disabled_at=clock.now_ms(), disabled_because="operator")
        await until(lambda: row(log).owner is None)
        claims = lanes.calls["claim"]
        sweeps = lanes.calls["endpoint_states"]
        log.append(stream, a_record(2))
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 3)
        assert lanes.calls["claim"] == claims
        assert len(receiver.requests) == 1
        log.enable("crm")
        await until(lambda: counted(dispatcher, "delivered") == 2)
    assert disabled(caplog) == [("ERROR", "endpoint crm is disabled (operator)")]


async def test_what_is_disabled_at_the_start_gets_nothing(log: MemoryLog, clock: HandClock, receiver: Receiver) -> None:
    log.endpoints = ["crm"]
    log.states["crm"] = EndpointState("crm", active=True, disabled_at=clock.now_ms(), disabled_because="operator")
    log.append(log.open(), a_record(1))
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (_, lanes):
        await until(lambda: lanes.calls["endpoint_states"] > 3)
        assert lanes.wanted == []
    assert receiver.requests == []


async def test_an_endpoint_that_steadily_fails_is_disabled_in_the_end(
    log: MemoryLog, clock: HandClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda _: Answer(500)
    async with dispatching(log, endpoint(receiver.url, **HOURLY), **SWEEPS):
        log.append(log.open(), a_record(1))
        for hour in range(1, 25):
            await until(lambda: len(log.tries) == hour)  # noqa: B023 - awaited within the turn
            assert log.states["crm"].disabled_at is None
            clock.at += 3_600_000
        await until(lambda: log.states["crm"].disabled_because == "failing")
        assert log.states["crm"].failing_since == EPOCH_MS
    assert len(receiver.requests) == 25
    assert disabled(caplog) == [("ERROR", "endpoint crm is disabled (failing; status 500)")]


async def test_an_endpoint_that_sometimes_succeeds_is_never_disabled(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(200 if len(receiver.requests) % 20 == 0 else 500)
    async with dispatching(log, endpoint(receiver.url, **HOURLY), **SWEEPS):
        log.append(log.open(), *(a_record(n) for n in range(1, 9)))
        for _ in range(100):
            tries = len(log.tries)
            clock.at += 3_600_000
            await until(lambda: len(log.tries) > tries)  # noqa: B023 - awaited within the turn
        assert log.states["crm"].disabled_at is None


async def test_interims_that_fail_disable_nothing(log: MemoryLog, clock: HandClock, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500)
    async with dispatching(log, endpoint(receiver.url, **HOURLY), **SWEEPS) as (dispatcher, _):
        stream = log.open()
        for number in range(1, 31):
            about: dict[str, Any] = {"utterance": "u", "revision": number, "emitted_at": clock.now_ms()}
            log.append(stream, a_record(number, "transcript.interim", **about))
            await until(lambda: counted(dispatcher, "skipped") == number)  # noqa: B023 - awaited within the turn
            clock.at += 3_600_000
    assert log.states["crm"].disabled_at is None
    assert log.states["crm"].failing_since is None


async def test_since_when_an_endpoint_fails_survives_a_restart(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(500)
    log.append(log.open(), a_record(1))
    for hour in range(25):
        async with dispatching(log, endpoint(receiver.url, **HOURLY), **SWEEPS):
            if not hour:
                log.append(log.open(), a_record(1))
            await until(lambda: len(log.tries) == hour + 1)  # noqa: B023 - awaited within the turn
        clock.at += 3_600_000
    assert log.states["crm"].disabled_because == "failing"


async def test_the_condition_is_written_every_five_seconds_and_at_the_end(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (dispatcher, lanes):
        stream = log.open()
        log.append(stream, a_record(1))
        await until(lambda: len(lanes.health) == 1)
        for number in range(2, 7):
            clock.at += 999
            log.append(stream, a_record(number))
            await until(lambda: counted(dispatcher, "delivered") == number)  # noqa: B023 - awaited within the turn
            sweeps = lanes.calls["endpoint_states"]
            await until(lambda: lanes.calls["endpoint_states"] > sweeps + 2)  # noqa: B023 - as above
        assert len(lanes.health) == 1
        clock.at += 5
        await until(lambda: len(lanes.health) == 2)
        clock.at += 1
        log.append(stream, a_record(7))
        await until(lambda: counted(dispatcher, "delivered") == 7)
    assert [one.succeeded_at for one in lanes.health] == [EPOCH_MS, EPOCH_MS + 4_995, EPOCH_MS + 5_001]


async def test_a_disabling_that_the_log_refused_is_made_up_for_and_nothing_is_sent(
    log: MemoryLog, receiver: Receiver
) -> None:
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (_, lanes):

        def answer(_: Received) -> Answer:
            lanes.broken = True
            return Answer(410)

        receiver.answer = answer
        stream = log.open()
        log.append(stream, a_record(1), a_record(2))
        await until(lambda: lanes.calls["note_health"] >= 2)
        lanes.broken = False
        await until(lambda: log.states["crm"].disabled_because == "gone")
        await until(lambda: row(log).owner is None)
    assert len(receiver.requests) == 1
    assert row(log).cursor == 0


async def test_a_rest_is_written_down_and_so_is_its_end(log: MemoryLog, clock: HandClock, receiver: Receiver) -> None:
    down = True
    receiver.answer = lambda _: Answer(500 if down else 200)
    rules = {"requests": 1, "failing": 0.5, "rest": 30}
    ends = endpoint(receiver.url, breaker=rules, retry=Retry(schedule=(timedelta(seconds=1),) * 9, jitter=0))
    async with dispatching(log, ends, **SWEEPS) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await until(lambda: log.states["crm"].resting_until == clock.at + 30_000)
        down = False
        clock.at += 30_000
        await until(lambda: counted(dispatcher, "delivered") == 1)
    assert log.states["crm"].resting_until is None


async def test_a_rest_that_the_log_refused_is_written_later(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    rules = {"requests": 1, "failing": 0.5, "rest": 30}
    async with dispatching(log, endpoint(receiver.url, breaker=rules), **SWEEPS) as (_, lanes):

        def answer(_: Received) -> Answer:
            lanes.broken = True
            return Answer(500)

        receiver.answer = answer
        log.append(log.open(), a_record(1))
        await until(lambda: lanes.calls["note_health"] > 0)
        lanes.broken = False
        await until(lambda: log.states["crm"].resting_until == clock.at + 30_000)


def test_a_rest_that_a_former_dispatcher_gave_is_forgotten() -> None:
    assert Condition(EndpointState("crm", active=True, resting_until=5)).unwritten
    assert Condition(EndpointState("crm", active=True, resting_until=5)).note("crm").resting_until is None
    assert not Condition(EndpointState("crm", active=True)).unwritten


def failed(
    condition: Condition,
    at: int,
    stage: Stage = "status",
    event: int = 1,
    *,
    began: int | None = None,
    status: int = 500,
) -> Blame:
    outcome = Failed(stage, 1.0, status=status if stage == "status" else None)
    return condition.failed(outcome, (1, event), began_ms=at if began is None else began, now_ms=at, probe=False)


def test_what_fails_beside_a_healthy_endpoint_is_the_events_own_failure() -> None:
    condition = Condition()
    condition.succeeded(1000)
    assert failed(condition, 1500) is Blame.EVENT
    assert failed(condition, 16_000, "timeout", began=1001) is Blame.EVENT
    condition.recovery = None
    condition.succeeded(17_000)
    assert condition.recovery is None, "such a failure is no outage that could be over"


@pytest.mark.parametrize("stage", ["dns", "egress", "connect", "tls"])
def test_what_was_never_sent_is_no_failure_of_the_event(stage: Stage) -> None:
    condition = Condition()
    condition.succeeded(1000)
    assert failed(condition, 1001, stage) is Blame.ENDPOINT


@pytest.mark.parametrize(("stage", "status"), [("timeout", 0), ("headers", 0), ("status", 503), ("status", 429)])
def test_no_answer_and_overload_are_an_outage_where_nothing_succeeds(stage: Stage, status: int) -> None:
    condition = Condition()
    condition.succeeded(1000)
    assert failed(condition, 20_000, stage, status=status) is Blame.ENDPOINT


def test_an_answer_is_an_outage_once_several_events_have_failed_and_none_succeeded() -> None:
    condition = Condition()
    condition.succeeded(1000)
    assert failed(condition, 20_000) is Blame.UNKNOWN
    assert failed(condition, 21_000) is Blame.UNKNOWN
    assert failed(condition, 22_000, event=2) is Blame.ENDPOINT
    assert failed(condition, 23_000) is Blame.ENDPOINT


def test_a_recovery_tells_since_when_it_was_down_where_that_was_long() -> None:
    condition = Condition()
    condition.succeeded(1000)
    assert condition.recovery == Recovery(None), "what was before the start is not known"
    condition.recovery = None
    failed(condition, 2000, "connect")
    condition.succeeded(11_999)
    assert condition.recovery == Recovery(None)
    failed(condition, 20_000, "connect")
    condition.succeeded(30_000)
    assert condition.recovery == Recovery(20_000), "one that was not followed yet takes the earlier ones in"
    assert failed(condition, 36_000, "timeout", began=29_999) is Blame.PAST
    assert failed(condition, 36_000, "timeout", began=30_000) is Blame.EVENT


def test_a_restart_in_an_outage_knows_since_when_it_lasts() -> None:
    condition = Condition(EndpointState("crm", active=True, failing_since=100), 500)
    condition.succeeded(50_000)
    assert condition.recovery == Recovery(100)


def test_time_in_which_nobody_tried_is_not_held_against_an_endpoint() -> None:
    day = 86_400_000
    before = EndpointState("crm", active=True, failing_since=day, failed_at=2 * day)
    condition = Condition(before, 9 * day)
    failed(condition, 9 * day + 1000)
    assert condition.failing_ms(9 * day + 1000) == 2 * day + 1000, "a day may pass between two attempts"
    assert Condition(before, 3 * day).failing_ms(3 * day) == 2 * day


def test_a_success_ends_the_failing_and_the_first_failure_begins_it() -> None:
    condition = Condition(EndpointState("crm", active=True, failing_since=100))
    failed(condition, 200, "timeout")
    assert condition.failing_ms(300) == 200
    assert condition.note("crm") == Health("crm", 100, None, 200, "timeout", has_rest_changed=False)
    condition.succeeded(400)
    assert condition.failing_ms(500) == 0
    failed(condition, 600, "dns")
    failed(condition, 700, "connect")
    assert condition.note("crm") == Health("crm", 600, 400, 700, "connect", has_rest_changed=False)
