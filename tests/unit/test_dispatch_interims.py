"""Of interims the latest wins, once, and nothing waits for them."""

import asyncio

import pytest

from relay.clock import SystemClock
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, per_stream, until
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(SystemClock())


async def test_of_interims_that_pile_up_the_latest_wins(log: MemoryLog, receiver: Receiver) -> None:
    go_on = asyncio.Event()

    async def answer(request: Received) -> Answer:
        await go_on.wait()
        return Answer()

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1, "speech.started"))
        await receiver.wait(1)
        for n in range(2, 12):
            log.append(stream, a_record(n, "transcript.interim", utterance="u1", revision=n))
        go_on.set()
        await receiver.wait(2)
        log.append(stream, a_record(12, "transcript.final", utterance="u1", revision=12))
        await receiver.wait(3)
        await until(lambda: counted(dispatcher, "delivered") == 3)
        assert counted(dispatcher, "skipped") == 9
    assert per_stream(receiver.requests) == {"str_A": [1, 11, 12]}


async def test_an_interim_has_one_try_and_blocks_nothing(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda r: Answer(500 if r.json()["type"] == "transcript.interim" else 200)
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1), a_record(2, "transcript.interim", utterance="u1", revision=1), a_record(3))
        await receiver.wait(3)
        await until(lambda: counted(dispatcher, "delivered") == 2)
        assert (counted(dispatcher, "retried"), counted(dispatcher, "skipped")) == (0, 1)
    assert per_stream(receiver.requests) == {"str_A": [1, 2, 3]}
    assert [r.headers["relay-previous-sequence"] for r in receiver.requests] == ["0", "1", "1"]
    assert [(t.sequence, t.number, t.stage, t.status) for t in log.tries] == [
        (1, 1, "ok", 200), (2, 1, "status", 500), (3, 1, "ok", 200),
    ]  # fmt: skip


async def test_an_interim_that_hangs_keeps_what_lasts_waiting_for_a_moment_only(
    log: MemoryLog, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda r: Answer(after=20 if r.json()["type"] == "transcript.interim" else 0)
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1, "transcript.interim", utterance="u1", revision=1))
        await receiver.wait(1)
        log.append(stream, a_record(2))
        await receiver.wait(2, within=5)
        log.append(stream, a_record(3, "transcript.interim", utterance="u2", revision=1), a_record(4))
        await receiver.wait(4, within=5)
        await until(lambda: counted(dispatcher, "delivered") == 2)
    assert per_stream(receiver.requests) == {"str_A": [1, 2, 3, 4]}
    assert [(one.sequence, one.stage) for one in log.tries] == [(1, "timeout"), (2, "ok"), (3, "timeout"), (4, "ok")]
    assert not [record for record in caplog.records if record.levelname == "WARNING"], "there is another one soon"


async def test_an_interim_that_holds_nobody_up_has_the_time_of_any_event(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda r: Answer(after=1.0 if r.json()["stream"]["sequence"] == 1 else 0)
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1, "transcript.interim", utterance="u1", revision=1))
        await receiver.wait(1)
        log.append(stream, a_record(2, "transcript.interim", utterance="u1", revision=2))
        await until(lambda: counted(dispatcher, "delivered") == 2)
    assert [(one.sequence, one.stage) for one in log.tries] == [(1, "ok"), (2, "ok")]


async def test_an_expired_interim_is_not_sent(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url)):
        stream = log.open()
        gone = a_record(1, "transcript.interim", utterance="u", revision=1, emitted_at=SystemClock().now_ms() - 10_001)
        log.append(stream, gone, a_record(2))
        await receiver.wait(1)
    assert per_stream(receiver.requests) == {"str_A": [2]}
