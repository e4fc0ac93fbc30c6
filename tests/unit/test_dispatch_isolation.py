"""An endpoint that hangs, fails or has a queue costs the others nothing."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from relay.clock import SystemClock
from relay.config.endpoint import Breaker, Retry
from relay.dispatch import state
from relay.outbox.records import Record
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, per_stream, until
from tests.support.dispatch.memory_lanes import MemoryLanes, MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver, receiving
from tests.support.outbox.outbox_store import HandClock

SWEEPS: dict[str, Any] = {"sweep_seconds": 0.02}


def by_path(**answers: Answer) -> Any:
    return lambda request: answers.get(request.path.strip("/"), Answer())


async def opened(log: MemoryLog) -> None:
    """Fail until the breaker of the endpoint ``down`` opens, and its lanes are let go."""
    for number in range(10):
        log.append(log.open(), a_record(1, stream=f"down{number}"))
    await until(lambda: len([t for t in log.tries if t.status == 500]) == 10)
    await until(lambda: all(row.owner is None for row in log.rows if row.endpoint == "down"))


async def test_an_open_endpoint_costs_no_query_per_event(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog(HandClock())
    receiver.answer = by_path(down=Answer(500))
    ends = [endpoint(f"{receiver.url}/down", "down"), endpoint(receiver.url)]
    async with dispatching(log, *ends, sweep_seconds=60) as (dispatcher, lanes):
        await opened(log)
        stream = log.open()
        log.append(stream, a_record(1, stream="up"))
        await until(lambda: counted(dispatcher, "delivered") == 11)
        claims, asked = lanes.calls["claim"], len(lanes.wanted)
        for number in range(2, 102):
            log.append(stream, a_record(number, stream="up"))
            await asyncio.sleep(0)
        await until(lambda: counted(dispatcher, "delivered") == 111)
        assert lanes.calls["claim"] == claims
        other = log.open()
        log.append(other, a_record(1, stream="other"))
        await until(lambda: counted(dispatcher, "delivered") == 112)
        assert all("down" not in wants for wants in lanes.wanted[asked:])
    assert [r.levelname for r in caplog.records if "mostly fails" in r.message] == ["WARNING"]


async def test_after_the_rest_one_attempt_decides(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "relay.dispatch")
    clock = HandClock()
    log = MemoryLog(clock)
    receiver.answer = lambda _: Answer(500)
    async with dispatching(log, endpoint(receiver.url, "down"), **SWEEPS) as (dispatcher, lanes):
        await opened(log)
        sweeps = lanes.calls["endpoint_states"]
        clock.at += 29_999
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 3)
        assert len(receiver.requests) == 10
        clock.at += 1
        await receiver.wait(11)
        await until(lambda: all(row.owner is None for row in log.rows))
        assert len(receiver.requests) == 11
        receiver.answer = lambda _: Answer()
        clock.at += 30_000
        await until(lambda: counted(dispatcher, "delivered") == 10)
        assert dispatcher.metrics.rings_lost.value() == 0
    told = [r.message for r in caplog.records if r.name == "relay.dispatch.endpoint.runtime"]
    assert [message.split(": ")[0] for message in told] == [
        "endpoint down mostly fails", "endpoint down still fails", "endpoint down is back",
    ]  # fmt: skip


async def test_the_first_success_and_a_recovery_are_one_line_each(
    log: MemoryLog, clock: HandClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "relay.dispatch")
    receiver.answer = lambda request: Answer(500 if request.json()["stream"]["sequence"] == 3 else 200)
    retry = Retry(schedule=(timedelta(seconds=60),) * 5, jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=retry), **SWEEPS) as (dispatcher, _):
        log.append(log.open(), a_record(1), a_record(2), a_record(3), a_record(4))
        await receiver.wait(3)
        await until(lambda: len(log.tries) == 3)
        receiver.answer = lambda _: Answer()
        clock.at += 60_000
        await until(lambda: counted(dispatcher, "delivered") == 4)
    told = [r.message for r in caplog.records if r.name == "relay.dispatch.endpoint.runtime"]
    assert told == ["endpoint crm: the first event was delivered", "endpoint crm is back: it has failed for 1 min"]


async def test_what_waited_for_an_open_endpoint_is_not_counted_as_a_lost_ring(receiver: Receiver) -> None:
    clock = HandClock()
    log = MemoryLog(clock)
    receiver.answer = lambda _: Answer(500)
    hourly = Retry(schedule=(timedelta(hours=1),) * 4)
    ends = endpoint(receiver.url, "down", concurrency=1, retry=hourly)
    async with dispatching(log, ends, **SWEEPS) as (dispatcher, _):
        for number in range(40):
            log.append(log.open(), a_record(1, stream=str(number)))
        await until(lambda: len(log.tries) == 10)
        await until(lambda: all(row.owner is None for row in log.rows))
        receiver.answer = lambda _: Answer()
        clock.at += 30_000
        await until(lambda: counted(dispatcher, "delivered") == 40)
        await asyncio.sleep(0.6)  # a ring may be that late
        assert dispatcher.metrics.rings_lost.value() == 0


async def test_twenty_endpoints_that_hang_starve_nobody(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    async with receiving() as hanging:
        hanging.answer = lambda _: Answer(after=30)
        ends = [endpoint(hanging.url, f"stuck{n}", concurrency=4) for n in range(20)]
        async with dispatching(log, *ends, endpoint(receiver.url), grace=0, concurrency=8):
            streams = {log.open(): str(n) for n in range(40)}
            for stream, name in streams.items():
                log.append(stream, a_record(1, stream=name))
            await hanging.wait(20)
            for stream, name in streams.items():
                log.append(stream, *(a_record(n, stream=name) for n in range(2, 6)))
            await receiver.wait(200, within=10)
            assert hanging.most_in_flight == 20  # the first of each, and no slot was left
    assert all(sequences == [1, 2, 3, 4, 5] for sequences in per_stream(receiver.requests).values())


async def test_an_endpoint_that_hangs_does_not_fill_what_the_process_may_hold(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "HELD", 80)
    log = MemoryLog(SystemClock())
    receiver.answer = by_path(stuck=Answer(after=30))
    ends = [endpoint(f"{receiver.url}/stuck", "stuck", concurrency=2), endpoint(receiver.url)]
    async with dispatching(log, *ends, grace=0, **SWEEPS) as (dispatcher, _):
        for number in range(300):
            log.append(log.open(), a_record(1, stream=str(number)))
        await until(lambda: counted(dispatcher, "delivered") == 300, within=20)
        held = [row for row in log.rows if row.owner is not None and row.endpoint == "stuck"]
        assert len(held) <= 2 + 2 * 20  # in flight, waiting, and on their way when more was claimed
        assert dispatcher.metrics.rings_lost.value() == 0


async def test_many_endpoints_that_hang_leave_lanes_for_the_others(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may hold so few that all of them together do not fill what the process may hold."""
    monkeypatch.setattr(state, "HELD", 80)
    log = MemoryLog(SystemClock())
    async with receiving() as hanging:
        hanging.answer = lambda _: Answer(after=120)
        ends = [endpoint(hanging.url, f"stuck{n}", breaker=None, timeout=60) for n in range(10)]
        async with dispatching(log, *ends, grace=0, concurrency=8, **SWEEPS) as (dispatcher, _):
            for number in range(40):
                log.append(log.open(), a_record(1, stream=str(number)))
            await hanging.wait(10)
            await dispatcher.reload([*ends, endpoint(receiver.url)])
            for number in range(40, 80):
                log.append(log.open(), a_record(1, stream=str(number)))
            await receiver.wait(40)


async def test_many_endpoints_that_are_probed_leave_lanes_for_the_others(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "HELD", 80)
    clock = HandClock()
    log = MemoryLog(clock)
    async with receiving() as down:
        down.answer = lambda _: Answer(500)
        strict = Breaker(requests=2)
        ends = [endpoint(down.url, f"down{n}", breaker=strict, timeout=60) for n in range(10)]
        async with dispatching(log, *ends, grace=0, **SWEEPS) as (dispatcher, _):
            for number in range(40):
                log.append(log.open(), a_record(1, stream=str(number)))
            await until(lambda: all(each.admission.shut for each in dispatcher._state.endpoints.values()))
            await until(lambda: all(row.owner is None for row in log.rows))
            probed = len(down.requests)
            down.answer = lambda _: Answer(after=120)
            clock.at += 30_000
            await down.wait(probed + 10)
            await dispatcher.reload([*ends, endpoint(receiver.url)])
            for number in range(40, 80):
                log.append(log.open(), a_record(1, stream=str(number)))
            await receiver.wait(40)


async def test_a_long_queue_is_refilled_before_it_runs_dry_without_a_sweep(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    log.endpoints = ["crm"]
    for number in range(1500):
        log.append(log.open(), a_record(1, stream=str(number)))
    async with dispatching(log, endpoint(receiver.url), sweep_seconds=60) as (dispatcher, lanes):
        await until(lambda: counted(dispatcher, "delivered") == 1500, within=30)
        assert lanes.calls["claim"] < 30
    assert len({request.id for request in receiver.requests}) == 1500


async def test_no_more_in_flight_than_the_process_may(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    receiver.answer = lambda _: Answer(after=0.01)
    ends = [endpoint(f"{receiver.url}/{n}", f"end{n}") for n in range(3)]
    async with dispatching(log, *ends, concurrency=5) as (dispatcher, _):
        for number in range(20):
            log.append(log.open(), a_record(1, stream=str(number)))
        await until(lambda: counted(dispatcher, "delivered") == 60)
    assert 5 <= receiver.most_in_flight <= 5 + 2


async def test_fewer_in_flight_after_the_endpoint_said_that_it_is_too_much(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    in_flight: list[int] = []

    async def answer(_: Received) -> Answer:
        in_flight.append(receiver.in_flight)
        await asyncio.sleep(0.01)
        return Answer(429 if len(in_flight) <= 8 else 200)

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url, concurrency=8, breaker=None)) as (dispatcher, _):
        for number in range(24):
            log.append(log.open(), a_record(1, stream=str(number)))
        await until(lambda: counted(dispatcher, "delivered") == 24)
    assert max(in_flight[:8]) == 8
    assert max(in_flight[8:14]) <= 5


async def test_interims_that_fail_open_nothing(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    receiver.answer = lambda _: Answer(500)
    strict = Breaker(requests=2)
    async with dispatching(log, endpoint(receiver.url, breaker=strict)) as (dispatcher, _):
        stream = log.open()
        for number in range(1, 11):
            log.append(stream, a_record(number, "transcript.interim", utterance="u", revision=number))
            await until(lambda: counted(dispatcher, "skipped") == number)  # noqa: B023 - awaited within the turn
    assert len(receiver.requests) == 10


async def test_what_was_claimed_counts_while_it_is_still_being_read(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "HELD", 80)
    log = MemoryLog(SystemClock())
    log.endpoints = ["crm"]
    for number in range(300):
        log.append(log.open(), a_record(1, stream=str(number)))
    lanes, go_on = MemoryLanes(log), asyncio.Event()
    read = lanes.read

    async def late(stream: int, after: int, limit: int) -> list[Record]:
        await go_on.wait()
        return await read(stream, after, limit)

    lanes.read = late  # type: ignore[method-assign]  # a slow disk
    async with dispatching(log, endpoint(receiver.url), lanes=lanes, sweep_seconds=60) as (dispatcher, _):
        await until(lambda: lanes.calls["claim"] > 0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len([row for row in log.rows if row.owner is not None]) == 40
        go_on.set()
        await until(lambda: counted(dispatcher, "delivered") >= 40)


async def test_no_endpoint_is_the_last_one_every_time(receiver: Receiver) -> None:
    log = MemoryLog(HandClock())
    names = ["crm", "search", "archive"]
    endpoints = [endpoint(f"{receiver.url}/{name}", name) for name in names]
    # one after the other, so that they arrive in the order in which they are sent
    async with dispatching(log, *endpoints, concurrency=1):
        stream = log.open()
        for number in range(1, 13):
            log.append(stream, a_record(number))
            # a lane that is not settled yet would be the last one again
            await until(lambda: [row.cursor for row in log.rows] == [number] * 3)  # noqa: B023 - awaited in the loop
    last = {request.path.strip("/") for request in receiver.requests[2::3]}
    assert last == set(names)
