"""Stopping sends what is there, within the grace, and the next start goes on."""

import asyncio
from datetime import timedelta

import pytest

from relay.clock import SystemClock
from relay.config.endpoint import Retry
from relay.dispatch.work import Phase
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, row, until
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(SystemClock())


async def test_stop_sends_what_is_there_and_gives_the_lanes_back(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after=0.005)
    async with dispatching(log, endpoint(receiver.url, concurrency=4)) as (dispatcher, _):
        streams = {log.open(): name for name in "ABCDEFGH"}
        for stream, name in streams.items():
            log.append(stream, *(a_record(n, stream=name) for n in range(1, 6)))
        await dispatcher.stop(10)
        assert counted(dispatcher, "delivered") == 40
    assert all((r.owner, r.next_at, r.cursor) == (None, None, 5) for r in log.rows)


async def test_stop_ends_with_the_last_event_of_a_lane_that_has_nothing_more(
    log: MemoryLog, receiver: Receiver
) -> None:
    answers = asyncio.Event()

    async def answer(_: Received) -> Answer:
        await answers.wait()
        return Answer()

    async with dispatching(log, endpoint(receiver.url), sweep_seconds=60) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await until(lambda: [lane.phase for lane in dispatcher._state.lanes.values()] == [Phase.IDLE])
        receiver.answer = answer
        log.append(1, a_record(2))  # it comes with its ring: nothing is read behind it
        await receiver.wait(2)
        stopping = asyncio.create_task(dispatcher.stop(3600))
        await until(lambda: dispatcher._maintenance._closed.is_set())
        await asyncio.sleep(0)  # the drain waits
        answers.set()
        async with asyncio.timeout(30):
            await stopping


async def test_stop_does_not_wait_for_retries(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500)
    later = Retry(schedule=(timedelta(hours=1),))
    async with dispatching(log, endpoint(receiver.url, retry=later)) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await receiver.wait(1)
        async with asyncio.timeout(30):
            await dispatcher.stop(60)
    assert row(log).attempts == 1
    assert row(log).owner is None


async def test_stop_breaks_off_at_the_end_of_the_grace(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after=30)
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await receiver.wait(1)
        async with asyncio.timeout(20):
            await dispatcher.stop(0.2)
    assert (row(log).cursor, row(log).attempts, row(log).owner) == (0, 0, None)
    assert (row(log).next_at or 0) <= SystemClock().now_ms()


async def test_a_restart_goes_on_where_it_stopped(log: MemoryLog, receiver: Receiver) -> None:
    log.endpoints = ["crm"]
    stream = log.open()
    log.append(stream, *(a_record(n) for n in range(1, 101)))
    receiver.answer = lambda _: Answer(after=0.002)
    async with dispatching(log, endpoint(receiver.url), grace=0):
        await receiver.wait(20)
    sent = len(receiver.requests)
    assert sent < 100
    async with dispatching(log, endpoint(receiver.url)):
        await receiver.wait_for(lambda: receiver.requests[-1].id == "evt_A_100")
    assert sorted({int(r.id.rpartition("_")[2]) for r in receiver.requests}) == list(range(1, 101))
    assert len(receiver.requests) <= 101
