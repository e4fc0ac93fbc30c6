"""The wall clock is set while events wait, are held and are under way."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from relay.clock import SharedClock
from relay.config.endpoint import Retry
from relay.dispatch.clock_jump import ClockJumps, Jump
from relay.dispatch.state import RetryTimer
from tests.support.builders import EPOCH_MS, a_record
from tests.support.dispatch.dispatching import (
    counted,
    dispatching,
    endpoint,
    per_stream,
    row,
    set_at_next_look,
    until,
)
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver
from tests.support.outbox.outbox_store import HandClock

HOUR = 3_600_000
SWEEPS: dict[str, Any] = {"sweep_seconds": 0.02}


@pytest.mark.parametrize("by_ms", [HOUR, -HOUR, 2_001, -2_001])
def test_a_jump_is_told_until_it_is_followed(by_ms: int, clock: HandClock) -> None:
    jumps = ClockJumps(clock)
    clock.at += 500
    clock.set_by += by_ms
    assert jumps.poll() == jumps.poll() == Jump(by_ms, EPOCH_MS + 500)
    jumps.followed(Jump(by_ms, EPOCH_MS + 500))
    assert jumps.poll() is None


def test_time_that_passes_and_a_clock_that_is_adjusted_are_no_jump(clock: HandClock) -> None:
    jumps = ClockJumps(clock)
    for _ in range(100):
        clock.at += 10 * HOUR
        clock.set_by += 2_000
        assert jumps.poll() is None


def test_a_moment_ago_is_a_moment_ago_after_the_clock_was_set_back() -> None:
    back, forward = Jump(-HOUR, EPOCH_MS), Jump(HOUR, EPOCH_MS)
    for after, before in ((EPOCH_MS - HOUR, EPOCH_MS), (EPOCH_MS - HOUR - 4_999, EPOCH_MS - 1)):
        assert back.past(after) == after
        assert back.past(before) == before - HOUR
        assert forward.past(before) == before + HOUR
    assert forward.past(EPOCH_MS + HOUR) == EPOCH_MS + HOUR


def test_what_rests_moves_along(clock: HandClock) -> None:
    timer = RetryTimer()
    timer.add((1, "crm"), EPOCH_MS + 5_000)
    timer.shift(Jump(-HOUR, EPOCH_MS))
    assert timer.earliest == EPOCH_MS + 5_000 - HOUR


@pytest.mark.parametrize("by_ms", [HOUR, -HOUR])
async def test_a_retry_is_made_after_the_time_that_was_to_pass(
    by_ms: int, log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(500)
    minutes = Retry(schedule=(timedelta(minutes=5),) * 3, jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=minutes), **SWEEPS) as (dispatcher, lanes):
        log.append(log.open(), a_record(1))
        await until(lambda: row(log).owner is None and row(log).attempts == 1)
        set_at_next_look(clock, by_ms, dispatcher)
        await until(lambda: lanes.calls["shift"] == 1)
        sweeps = lanes.calls["endpoint_states"]
        clock.at += 299_000
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 3)
        assert len(receiver.requests) == 1  # no storm
        clock.at += 1_000
        await receiver.wait(2)  # no stall
        assert [by for by in lanes.shifts if by] == [by_ms]


@pytest.mark.parametrize("by_ms", [HOUR, -HOUR])
async def test_what_is_under_way_is_not_sent_again_and_nothing_overtakes_it(
    by_ms: int, log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    go_on = asyncio.Event()

    async def answer(_: Received) -> Answer:
        await go_on.wait()
        return Answer()

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (dispatcher, lanes):
        stream = log.open()
        log.append(stream, a_record(1), a_record(2))
        await receiver.wait(1)
        set_at_next_look(clock, by_ms, dispatcher)
        other = log.open()
        log.append(other, a_record(1, stream="B"))  # rings, and so claims at once
        await receiver.wait(2)
        sweeps = lanes.calls["endpoint_states"]
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 3)
        go_on.set()
        await until(lambda: counted(dispatcher, "delivered") == 3)
        log.append(stream, a_record(3))
        await until(lambda: counted(dispatcher, "delivered") == 4)
        assert dispatcher.metrics.fenced.value() == 0
    assert per_stream(receiver.requests) == {"str_A": [1, 2, 3], "str_B": [1]}


@pytest.mark.parametrize("by_ms", [HOUR, -HOUR])
async def test_lanes_that_lie_idle_are_let_go_after_the_linger_that_was_to_pass(
    by_ms: int, log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (dispatcher, lanes):
        log.append(log.open(), a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        set_at_next_look(clock, by_ms, dispatcher)
        await until(lambda: lanes.calls["shift"] == 1)
        sweeps = lanes.calls["endpoint_states"]
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 2)
        assert row(log).owner == "here"
        clock.at += 10_000
        await until(lambda: row(log).owner is None)


@pytest.mark.parametrize("by_ms", [6 * 24 * HOUR, -6 * 24 * HOUR])
async def test_nobody_is_disabled_or_parked_for_time_that_never_passed(
    by_ms: int, log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(500)
    seconds = Retry(schedule=(timedelta(seconds=10),) * 3, jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=seconds), **SWEEPS) as (dispatcher, lanes):
        log.append(log.open(), a_record(1))
        await until(lambda: row(log).owner is None and row(log).attempts == 1)
        set_at_next_look(clock, by_ms, dispatcher)
        await until(lambda: lanes.calls["shift"] == 1)
        clock.at += 10_000
        await until(lambda: row(log).owner is None and row(log).attempts >= 2)
        assert log.states["crm"].disabled_at is None
        assert not log.parked
        assert row(log).failing_since == EPOCH_MS + by_ms


async def test_since_when_an_event_fails_follows_a_clock_that_is_set_during_its_retry(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    go_on = asyncio.Event()

    async def answer(_: Received) -> Answer:
        if len(receiver.requests) > 1:
            await go_on.wait()
        return Answer(500)

    receiver.answer = answer
    seconds = Retry(schedule=(timedelta(seconds=10),) * 3, jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=seconds), **SWEEPS) as (dispatcher, lanes):
        log.append(log.open(), a_record(1))
        await until(lambda: row(log).owner is None and row(log).attempts == 1)
        clock.at += 10_000
        await receiver.wait(2)
        set_at_next_look(clock, 6 * 24 * HOUR, dispatcher)
        await until(lambda: lanes.calls["shift"] == 1)
        sweeps = lanes.calls["endpoint_states"]
        await until(lambda: lanes.calls["endpoint_states"] > sweeps)
        go_on.set()
        await until(lambda: bool(log.parked) or (row(log).owner is None and row(log).attempts == 2))
        assert not log.parked
        assert row(log).failing_since == EPOCH_MS + 6 * 24 * HOUR


async def test_a_failure_just_after_the_clock_was_set_back_disables_and_parks_nothing(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    seconds = Retry(schedule=(timedelta(seconds=10),) * 3, jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=seconds), sweep_seconds=0.5) as (_, lanes):

        def answer(_: Received) -> Answer:
            if not lanes.calls["shift"]:  # the clock is set while the first attempt is under way
                clock.set_by = -6 * 24 * HOUR
            return Answer(500)

        receiver.answer = answer
        log.append(log.open(), a_record(1))
        await until(lambda: lanes.calls["shift"] == 1)
        await until(lambda: row(log).owner is None and row(log).attempts >= 1)
        clock.at += 10_000
        await until(lambda: row(log).owner is None and row(log).attempts >= 2)
        assert log.states["crm"].disabled_at is None
        assert not log.parked


async def test_a_jump_that_the_log_could_not_follow_is_followed_later(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (dispatcher, lanes):
        await until(lambda: lanes.calls["endpoint_states"] >= 1)  # a start that finds it broken ends the dispatcher
        lanes.broken = True
        clock.set_by -= HOUR
        await until(lambda: lanes.calls["shift"] >= 2)
        lanes.broken = False
        log.append(log.open(), a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)


def test_a_shared_clock_is_the_servers_whatever_is_set_here_or_how_slow_it_answers(clock: HandClock) -> None:
    shared, ahead = SharedClock(clock), 5_000
    shared.measured(clock.at - 10, clock.at - 5 + ahead, clock.at)
    assert shared.now_ms() == clock.at + ahead
    clock.set_by = HOUR
    clock.at += 1_000
    assert shared.now_ms() == clock.at + ahead
    shared.measured(clock.at - 800, clock.at - 790 + ahead, clock.at)  # slow, and nothing new: nothing changes
    assert shared.now_ms() == clock.at + ahead
    shared.measured(clock.at - 2, clock.at + ahead + HOUR, clock.at)
    assert clock.at + ahead + HOUR <= shared.now_ms() <= clock.at + ahead + HOUR + 2
