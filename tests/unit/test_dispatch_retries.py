"""Retries follow the schedule in the log, in whichever process they run."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from relay.clock import SystemClock
from relay.config.endpoint import Retry
from relay.dispatch.signing import new_secret
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, row, until
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_store import HandClock


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(SystemClock())


async def test_every_attempt_has_the_same_id_and_bytes_and_a_fresh_timestamp(
    log: MemoryLog, receiver: Receiver
) -> None:
    clock, secret = HandClock(SystemClock().now_ms()), new_secret()
    log.clock = clock
    receiver.answer = lambda _: Answer(200 if len(receiver.requests) == 3 else 500)
    settings: dict[str, Any] = {"signing": "standard", "secret": secret, "include": {"text": False}}
    async with dispatching(log, endpoint(receiver.url, **settings)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1, "transcript.final"))
        for attempt in range(1, 4):
            await receiver.wait(attempt)
            await until(lambda: len(log.tries) == attempt)  # noqa: B023 - awaited within the turn
            clock.at += 2_000
            dispatcher.ring({stream: []})
    first, second, third = receiver.requests
    assert first.body == second.body == third.body
    assert json.loads(first.body)["data"] == {"text": ""}
    assert first.id == second.id == third.id
    times = [int(r.headers["webhook-timestamp"]) for r in receiver.requests]
    assert times[0] < times[1] < times[2]
    for request in receiver.requests:
        Webhook(secret).verify(request.body, request.headers)


async def test_after_the_schedule_the_event_is_dead_and_the_lane_goes_on(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda r: Answer(500 if r.json()["stream"]["sequence"] == 1 else 200)
    twice = Retry(schedule=(timedelta(milliseconds=10),))
    async with dispatching(log, endpoint(receiver.url, retry=twice)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1), a_record(2))
        await receiver.wait(3)
        await until(lambda: counted(dispatcher, "delivered") == 1)
        assert (counted(dispatcher, "retried"), counted(dispatcher, "dead")) == (1, 1)
    (dead,) = log.dead
    assert (dead.sequence, dead.attempts, dead.reason) == (1, 2, "status 500")
    assert [r.headers["relay-previous-sequence"] for r in receiver.requests] == ["0", "0", "1"]


async def test_a_retry_time_survives_a_restart(log: MemoryLog, receiver: Receiver) -> None:
    clock = HandClock()
    log.clock = clock
    receiver.answer = lambda _: Answer(500)
    later = Retry(schedule=(timedelta(minutes=5),), jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=later)):
        stream = log.open()
        log.append(stream, a_record(1))
        await receiver.wait(1)
        await until(lambda: row(log).owner is None)
    assert row(log).next_at == clock.at + 300_000
    receiver.answer = lambda _: Answer()
    async with dispatching(log, endpoint(receiver.url, retry=later)) as (dispatcher, _):
        clock.at += 299_000
        dispatcher.ring({stream: []})
        await asyncio.sleep(0.3)
        assert len(receiver.requests) == 1
        clock.at += 1_001
        await receiver.wait(2)
        await until(lambda: counted(dispatcher, "delivered") == 1)
    assert [t.number for t in log.tries] == [1, 2]
    assert row(log).attempts == 0


async def test_a_retry_is_made_when_it_is_due_and_not_a_sweep_later(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500 if len(receiver.requests) == 1 else 200)
    quick = Retry(schedule=(timedelta(milliseconds=200),), jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=quick), sweep_seconds=5):
        log.append(log.open(), a_record(1))
        await receiver.wait(2)
    first, second = receiver.requests
    assert 0.19 < second.at - first.at < 4, "a sweep would find it after 5 s"


async def test_a_lost_ring_costs_a_sweep_and_is_counted(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        held, fresh = log.open(), log.open()
        log.append(held, a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        assert dispatcher.metrics.rings_lost.value() == 0
        log.append(held, a_record(2), ring=False)
        await receiver.wait(2)
        log.append(fresh, a_record(1, stream="B"), ring=False)
        await receiver.wait(3)
        await until(lambda: dispatcher.metrics.rings_lost.value() == 2)


async def test_rings_in_time_are_never_counted_as_lost(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url), sweep_seconds=0.06) as (dispatcher, _):
        for n in range(1, 101):
            stream = log.open()
            log.append(stream, a_record(1, stream=str(n)))
            await asyncio.sleep(0.003)
            log.append(stream, a_record(2, stream=str(n)))
        await receiver.wait(200)
        await asyncio.sleep(0.1)
        assert dispatcher.metrics.rings_lost.value() == 0
