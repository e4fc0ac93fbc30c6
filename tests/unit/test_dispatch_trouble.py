"""A log that breaks, a lane that is lost, a process that stood still, a bug."""

import asyncio
from typing import Any

import pytest

from relay.clock import SystemClock
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.http.outcome import Outcome
from relay.dispatch.http.transport import Headers, open_transport
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, row, until
from tests.support.dispatch.memory_lanes import MemoryLanes, MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver, receiving
from tests.support.outbox.outbox_store import HandClock


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(SystemClock())


async def test_a_log_that_breaks_for_a_while_stops_nothing_for_good(
    log: MemoryLog, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, lanes):
        stream = log.open()
        log.append(stream, a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        lanes.broken = True
        log.append(stream, a_record(2))
        other = log.open()
        log.append(other, a_record(1, stream="B"))
        await until(lambda: "the disk is full" in caplog.text)
        await asyncio.sleep(0.25)
        lanes.broken = False
        await until(lambda: counted(dispatcher, "delivered") == 3)
    assert sorted(r.id for r in receiver.requests) == ["evt_A_1", "evt_A_2", "evt_B_1"]


async def test_a_settlement_that_failed_is_made_up_for_without_sending_again(
    log: MemoryLog, receiver: Receiver
) -> None:
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, lanes):

        async def answer(_: Received) -> Answer:
            lanes.broken = len(receiver.requests) == 1
            return Answer()

        receiver.answer = answer
        log.append(log.open(), a_record(1), a_record(2))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        await asyncio.sleep(0.25)
        assert len(receiver.requests) == 1
        lanes.broken = False
        await receiver.wait(2)
    assert [r.id for r in receiver.requests] == ["evt_A_1", "evt_A_2"]
    assert row(log).cursor == 2


async def test_a_settlement_that_failed_is_written_with_the_release_at_a_stop(
    log: MemoryLog, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with dispatching(log, endpoint(receiver.url), sweep_seconds=60, grace=0) as (_, lanes):

        async def answer(_: Received) -> Answer:
            lanes.broken = True
            return Answer(500)

        receiver.answer = answer
        log.append(log.open(), a_record(1))
        await until(lambda: "a delivery cannot be settled" in caplog.text)
        lanes.broken = False
    assert (row(log).owner, row(log).attempts) == (None, 1), "or its schedule would begin again after the next start"


async def test_a_lane_that_was_taken_over_is_left_alone(log: MemoryLog, receiver: Receiver) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: Received) -> Answer:
        arrived.set()
        await go_on.wait()
        return Answer()

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        log.append(log.open(), a_record(1), a_record(2))
        await arrived.wait()
        row(log).fence += 1
        row(log).owner, row(log).next_at = "there", SystemClock().now_ms() + 60_000
        go_on.set()
        await until(lambda: dispatcher.metrics.fenced.value() == 1)
    assert row(log).cursor == 0
    assert len(receiver.requests) == 1


async def test_what_was_purged_is_not_sent_from_memory_that_another_endpoint_uses(
    log: MemoryLog, receiver: Receiver
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: Received) -> Answer:
        if not arrived.is_set():
            arrived.set()
            await go_on.wait()
        return Answer()

    async with receiving() as slow:
        slow.answer = answer
        async with dispatching(log, endpoint(receiver.url), endpoint(slow.url, "slow")):
            log.append(log.open(), *(a_record(sequence) for sequence in range(1, 6)))
            await receiver.wait(5)
            await arrived.wait()
            await until(lambda: log.rows[0].cursor == 5)
            log.events[1][2:4] = [a._replace(body=b"", expires_at=0) for a in log.events[1][2:4]]
            for lane in log.rows:
                lane.owner, lane.fence, lane.next_at = None, lane.fence + 1, SystemClock().now_ms()
            await until(lambda: all(lane.owner for lane in log.rows))
            go_on.set()
            await until(lambda: log.rows[1].cursor == 5)
        assert {request.json()["stream"]["sequence"] for request in slow.requests} == {1, 2, 5}


async def test_a_process_that_stood_still_past_its_lease_sends_nothing_more(log: MemoryLog, receiver: Receiver) -> None:
    clock = HandClock()
    log.clock = clock
    go_on = asyncio.Event()

    async def answer(_: Received) -> Answer:
        await go_on.wait()
        return Answer()

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url, concurrency=1), sweep_seconds=60) as (_, lanes):
        go_on.set()
        log.append(log.open(), a_record(1, stream="C"))
        await until(lambda: lanes.calls["recover"] == 1)  # the first success is a reason to claim, no other one is
        go_on.clear()
        first, second = log.open(), log.open()
        log.append(first, a_record(1))
        log.append(second, a_record(1, stream="B"))
        await receiver.wait(2)
        clock.at += 46_000
        go_on.set()
        await until(lambda: row(log, first).cursor == 1)
        await asyncio.sleep(0.1)
        assert len(receiver.requests) == 2


async def test_a_bug_in_a_worker_ends_the_run_and_gives_the_lanes_back(log: MemoryLog) -> None:
    class Broken:
        async def post(self, url: object, headers: Headers, body: bytes, deadline: float) -> Outcome:
            raise ZeroDivisionError

        async def aclose(self) -> None: ...

    log.endpoints = ["crm"]
    log.append(log.open(), a_record(1))
    dispatcher = Dispatcher(
        MemoryLanes(log), [endpoint("http://127.0.0.1:9/")], clock=SystemClock(), open_transport=lambda _: Broken()
    )
    with pytest.raises(ExceptionGroup) as bugs:
        await dispatcher.run()
    assert bugs.group_contains(ZeroDivisionError)
    assert row(log).owner is None


async def test_a_bug_in_a_callback_ends_the_run(log: MemoryLog, receiver: Receiver) -> None:
    log.endpoints = ["crm"]
    log.append(log.open(), a_record(1))
    lanes = MemoryLanes(log)

    async def broken(*_: object) -> list[Any]:
        raise ZeroDivisionError

    lanes.read = broken  # type: ignore[method-assign, assignment]  # a bug in the store
    dispatcher = Dispatcher(lanes, [endpoint(receiver.url)], clock=SystemClock(), open_transport=open_transport)
    with pytest.raises(ExceptionGroup) as bugs:
        await dispatcher.run()
    assert bugs.group_contains(ZeroDivisionError)
