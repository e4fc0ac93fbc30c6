"""The dispatcher over a log in memory, posting to a real receiver: order, and what waits for what."""

import asyncio
import random
import re
from itertools import pairwise
from typing import Any

import pytest
from standardwebhooks import Webhook

from relay.clock import SystemClock
from relay.dispatch.delivery.reader import BATCH
from relay.dispatch.signing import new_secret
from relay.events.envelope import Delivery
from relay.outbox.records import Record
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, per_stream, row, until
from tests.support.dispatch.memory_lanes import MemoryLanes, MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver, receiving


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(SystemClock())


async def test_a_backlog_that_nobody_asks_for_is_passed_over_without_a_sweep(
    log: MemoryLog, receiver: Receiver
) -> None:
    log.endpoints = ["crm"]
    passed_over = (a_record(number, "vad.speech_started") for number in range(1, 5 * BATCH))
    log.append(log.open(), *passed_over, a_record(5 * BATCH))
    async with dispatching(log, endpoint(receiver.url, events=["speech.*"]), sweep_seconds=3600):
        await receiver.wait(1)


async def test_events_arrive_signed_in_order_with_the_sequence_before(log: MemoryLog, receiver: Receiver) -> None:
    secret = new_secret()
    async with dispatching(log, endpoint(receiver.url, signing="standard", secret=secret)):
        stream = log.open()
        for n in range(1, 11):
            log.append(stream, a_record(n))
        await receiver.wait(10)
    for request in receiver.requests:
        Webhook(secret).verify(request.body, request.headers)
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("speech-relay/")
    assert per_stream(receiver.requests) == {"str_A": list(range(1, 11))}
    assert [r.headers["relay-previous-sequence"] for r in receiver.requests] == [str(n) for n in range(10)]
    assert [r.id for r in receiver.requests] == [f"evt_A_{n}" for n in range(1, 11)]


async def test_a_skipped_event_leaves_no_hole(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url, events=["speech.*"])) as (dispatcher, _):
        stream = log.open()
        log.append(
            stream, a_record(1), a_record(2, "vad.speech_started"), a_record(3, "stt.speech_started"), a_record(4)
        )
        await receiver.wait(2)
        await until(lambda: counted(dispatcher, "delivered") == 2)
        assert counted(dispatcher, "skipped") == 2
    assert [r.headers["relay-previous-sequence"] for r in receiver.requests] == ["0", "1"]


async def test_order_holds_and_nothing_is_lost_while_every_third_attempt_fails(
    log: MemoryLog, receiver: Receiver
) -> None:
    def answer(request: Received) -> Answer:
        return Answer(503 if len(receiver.requests) % 3 == 0 else 200)

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        streams = {log.open(): name for name in "ABCDEFGH"}
        for n in range(1, 16):
            for stream, name in streams.items():
                log.append(stream, a_record(n, stream=name))
        await until(lambda: counted(dispatcher, "delivered") == 8 * 15)
        assert counted(dispatcher, "retried") > 0
        assert dispatcher.metrics.rings_lost.value() == 0
    for sequences in per_stream(receiver.requests).values():
        assert all(b - a in (0, 1) for a, b in pairwise(sequences))
        assert sequences[-1] == 15
    assert len(log.tries) == len(receiver.requests)


async def test_what_the_ring_bears_is_not_read(log: MemoryLog, receiver: Receiver) -> None:
    reads: list[tuple[int, int]] = []

    class Counting(MemoryLanes):
        async def read(self, stream: int, after: int, limit: int) -> list[Record]:
            reads.append((stream, after))
            return await super().read(stream, after, limit)

    async with dispatching(log, endpoint(receiver.url), lanes=Counting(log)) as (dispatcher, _):
        stream = log.open()
        for n in range(1, 6):
            log.append(stream, a_record(n))
            await until(lambda n=n: counted(dispatcher, "delivered") == n)  # type: ignore[misc]  # mypy takes no default here
    assert reads == [(stream, 0)], "once, when the lane was claimed"


@pytest.mark.parametrize("seed", range(5))
async def test_order_holds_and_nothing_is_lost_whatever_becomes_of_rings(
    log: MemoryLog, receiver: Receiver, seed: int
) -> None:
    """Lost, doubled, late, bearing what was appended or nothing."""
    dice = random.Random(seed)
    late: list[tuple[int, Record]] = []
    async with dispatching(log, endpoint(receiver.url), endpoint(f"{receiver.url}/other", "other")) as (dispatcher, _):
        streams = {log.open(): name for name in "ABC"}
        for n in range(1, 21):
            for stream, name in streams.items():
                log.append(stream, one := a_record(n, stream=name), ring=False)
                for _ in range(dice.choice([0, 1, 1, 2])):
                    log.ring(stream, *([one] if dice.random() < 0.7 else []))
                if dice.random() < 0.3:
                    late.append((stream, one))
            if late and dice.random() < 0.5:
                stream, one = late.pop(dice.randrange(len(late)))
                log.ring(stream, one)
            await asyncio.sleep(0.002 * dice.random())
        await until(lambda: counted(dispatcher, "delivered") == 2 * 3 * 20)
    for path in {request.path for request in receiver.requests}:
        came = per_stream([request for request in receiver.requests if request.path == path])
        assert came == {f"str_{name}": list(range(1, 21)) for name in "ABC"}
    assert [row.cursor for row in log.rows] == [20] * 6


async def test_one_in_flight_per_lane_and_lanes_side_by_side(log: MemoryLog, receiver: Receiver) -> None:
    streams_now: set[str] = set()

    async def answer(request: Received) -> Answer:
        stream = request.json()["stream"]["id"]
        assert stream not in streams_now
        streams_now.add(stream)
        await asyncio.sleep(0.02)
        streams_now.remove(stream)
        return Answer()

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url, concurrency=4)):
        streams = {log.open(): name for name in "ABCDEFGH"}
        for stream, name in streams.items():
            log.append(stream, *(a_record(n, stream=name) for n in range(1, 4)))
        await receiver.wait_for(lambda: len(receiver.answered) == 24)
    assert receiver.most_in_flight == 4
    assert all(sequences == [1, 2, 3] for sequences in per_stream(receiver.requests).values())


async def test_the_next_event_waits_for_the_commit(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url)) as (_, lanes):
        held = asyncio.Event()
        settle = lanes.settle

        async def late(settlement: Any, *, awaited: bool = True) -> None:
            await held.wait()
            await settle(settlement, awaited=awaited)

        lanes.settle = late  # type: ignore[method-assign]  # a slow disk
        stream = log.open()
        log.append(stream, a_record(1), a_record(2))
        await receiver.wait_for(lambda: len(receiver.answered) == 1)
        await asyncio.sleep(0.1)
        assert len(receiver.requests) == 1
        held.set()
        await receiver.wait(2)


async def test_a_hanging_endpoint_does_not_delay_another(log: MemoryLog, receiver: Receiver) -> None:
    async with receiving() as hanging:
        hanging.answer = lambda _: Answer(after=30)
        async with dispatching(log, endpoint(hanging.url, "stuck", concurrency=2), endpoint(receiver.url), grace=0) as (
            dispatcher,
            _,
        ):
            streams = {log.open(): str(n) for n in range(20)}
            for stream, name in streams.items():
                log.append(stream, a_record(1, stream=name), a_record(2, stream=name))
            await receiver.wait(40, within=5)
            assert hanging.most_in_flight == 2
            await until(lambda: counted(dispatcher, "delivered") == 40)


async def test_what_was_skipped_at_the_end_is_written_down_when_the_lane_is_let_go(
    log: MemoryLog, receiver: Receiver
) -> None:
    async with dispatching(log, endpoint(receiver.url, events=["speech.*"]), linger_ms=50):
        stream = log.open()
        log.append(stream, a_record(1), *(a_record(n, "vad.speech_started") for n in range(2, 200)))
        await until(lambda: row(log).owner is None and row(log).cursor == 199)
        assert row(log).next_at is None
        log.append(stream, a_record(200))
        await receiver.wait(2)
    assert [r.headers["relay-previous-sequence"] for r in receiver.requests] == ["0", "1"]


async def test_a_long_backlog_for_two_endpoints_that_are_not_equally_far(log: MemoryLog, receiver: Receiver) -> None:
    async with receiving() as slow:
        slow.answer = lambda _: Answer(after=0.002)
        stream_count, length = 3, 400
        ends = (endpoint(receiver.url), endpoint(slow.url, "slow"))
        log.endpoints = ["crm", "slow"]
        streams = {log.open(): name for name in "ABC"}
        for stream, name in streams.items():
            log.append(stream, *(a_record(n, stream=name) for n in range(1, length + 1)))
        async with dispatching(log, *ends) as (dispatcher, _):
            await until(lambda: counted(dispatcher, "delivered") == 2 * stream_count * length, within=60)
    for each in (receiver, slow):
        came = per_stream(each.requests)
        assert all(sequences == list(range(1, length + 1)) for sequences in came.values())
        assert len(came) == stream_count


async def test_one_readable_record_per_attempt_without_what_was_said(
    log: MemoryLog, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "relay.dispatch.attempt")
    receiver.answer = lambda _: Answer(200 if len(receiver.requests) > 1 else 503)
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        log.append(log.open(participant="alice@example.com"), a_record(1, "transcript.final", text="my secret"))
        await until(lambda: counted(dispatcher, "delivered") == 1)
    failed, delivered = [vars(r) for r in caplog.records if r.name == "relay.dispatch.attempt"]
    assert (failed["levelname"], failed["stage"], failed["status"], failed["attempt"]) == ("WARNING", "status", 503, 1)
    assert failed["message"].startswith("transcript.final to crm: status 503; next attempt in 0 s")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", failed["next_attempt"])
    assert (failed["parked"], delivered["message"]) == (False, "transcript.final to crm: delivered")
    assert (delivered["levelname"], delivered["stage"], delivered["attempt"]) == ("DEBUG", "ok", 2)
    assert delivered["event_id"] == "evt_A_1"
    assert delivered["elapsed_ms"] > 0
    for record in (failed, delivered):
        assert not {"verdict", "stream", "retry_at", "aside"} & record.keys()
        assert "my secret" not in str(record)
        assert "alice" not in str(record)


def test_the_twin_knows_what_latest_means() -> None:
    assert a_record(1, "transcript.interim").delivery is Delivery.LATEST
