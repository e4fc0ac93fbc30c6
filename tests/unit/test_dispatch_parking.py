"""Heads that fail for long: put aside, retried aside, given up, and those behind them."""

from datetime import timedelta
from typing import Any

import pytest

from relay.config.endpoint import Retry
from relay.dispatch.dispatcher import Dispatcher
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, row, until
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver
from tests.support.outbox.outbox_store import HandClock

SLOW = Retry(
    schedule=(timedelta(seconds=10), timedelta(hours=1), timedelta(hours=2)), park_after=timedelta(minutes=5), jitter=0
)
SWEEPS: dict[str, Any] = {"sweep_seconds": 0.02}


def first_fails(request: Received) -> Answer:
    return Answer(500 if request.json()["stream"]["sequence"] == 1 else 200)


def came(receiver: Receiver) -> list[tuple[int, int]]:
    """(sequence, relay-previous-sequence) of each request, but for those of :func:`shown_healthy`."""
    return [
        (request.json()["stream"]["sequence"], int(request.headers["relay-previous-sequence"]))
        for request in receiver.requests
        if request.json()["stream"]["id"] != "str_H"
    ]


async def shown_healthy(log: MemoryLog, dispatcher: Dispatcher) -> None:
    """The endpoint takes an event of another stream: what fails beside that is the event's own failure."""
    receiver_had, stream = counted(dispatcher, "delivered"), log.open()
    first = a_record(1, stream="H")
    log.append(stream, first._replace(type="speech.ended", body=first.body.replace(b'"sequence": 1', b'"sequence": 0')))
    await until(lambda: counted(dispatcher, "delivered") > receiver_had and row(log, stream).cursor == 1)


async def test_a_head_that_fails_for_long_is_put_aside_and_shows_as_a_hole(
    log: MemoryLog, clock: HandClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = first_fails
    async with dispatching(log, endpoint(receiver.url, retry=SLOW), **SWEEPS) as (dispatcher, _):
        log.append(log.open(), a_record(1), a_record(2), a_record(3))
        await until(lambda: len(log.tries) == 1)
        clock.at += 10_000
        await until(lambda: len(log.tries) == 2)
        clock.at += 290_000  # the second wait of an hour is pulled in
        await until(lambda: counted(dispatcher, "delivered") == 2)
        assert counted(dispatcher, "parked") == 1
        # nobody knew whether it was the endpoint that failed: it is tried once more now that others arrive
        await until(lambda: len(log.tries) == 6 and log.parked[0].owner is None)
    assert came(receiver)[:4] == [(1, 0), (1, 0), (1, 0), (2, 1)]
    assert sorted(came(receiver)[4:]) == [(1, 0), (3, 2)]
    (aside,) = log.parked
    assert (aside.sequence, aside.attempts, aside.reason, aside.previous) == (1, 3, "status 500", 0)
    assert aside.next_at == clock.now_ms() + 7_200_000
    told = [(r.levelname, r.message) for r in caplog.records if r.name.startswith("relay.dispatch")]
    parked = "; parked after 3 attempts: events behind it go on, next attempt in 2 h"
    assert [level for level, message in told if message.endswith(f"to crm: status 500{parked}")] == ["WARNING"]
    assert len({message for _, message in told if "parked" in message}) == 1


async def test_a_parked_event_is_retried_aside_by_its_schedule_and_delivered(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = first_fails
    hourly = Retry(schedule=(timedelta(hours=1),) * 4, park_after=timedelta(0), jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=hourly), **SWEEPS) as (dispatcher, lanes):
        await shown_healthy(log, dispatcher)
        stream = log.open()
        log.append(stream, a_record(1), a_record(2))
        await until(lambda: counted(dispatcher, "delivered") == 2)
        (aside,) = log.parked
        claims = lanes.calls["claim_parked"]
        clock.at += 3_599_999
        await until(lambda: lanes.calls["claim_parked"] > claims + 3)
        assert len(came(receiver)) == 2
        await shown_healthy(log, dispatcher)
        clock.at += 1
        await until(lambda: aside.attempts == 2 and aside.owner is None)
        log.append(stream, a_record(3))
        await until(lambda: counted(dispatcher, "delivered") == 4)
        receiver.answer = lambda _: Answer()
        clock.at += 3_600_000
        await until(lambda: not log.parked)
        assert counted(dispatcher, "delivered") == 5
    assert came(receiver) == [(1, 0), (2, 1), (1, 0), (3, 2), (1, 0)]
    tries = [(t.number, t.stage) for t in log.tries if t.sequence == 1 and t.lane == aside.lane]
    assert tries == [(1, "status"), (2, "status"), (3, "ok")]
    assert not log.dead


async def test_a_parked_event_that_was_not_sent_is_given_back_when_stopping(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = first_fails
    hourly = Retry(schedule=(timedelta(hours=1),) * 4, park_after=timedelta(0), jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=hourly), grace=0, **SWEEPS):
        log.append(log.open(), a_record(1))
        await until(lambda: len(log.parked) == 1)
        receiver.answer = lambda _: Answer(after=30)
        clock.at += 3_600_000
        await receiver.wait(2)
    (aside,) = log.parked
    assert (aside.owner, aside.attempts, aside.reason) == (None, 1, "status 500")
    assert aside.next_at <= clock.now_ms()


async def test_a_parked_event_whose_schedule_is_used_up_is_dead(
    log: MemoryLog, clock: HandClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = first_fails
    quick = Retry(schedule=(timedelta(seconds=10),) * 2, park_after=timedelta(0), jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=quick), **SWEEPS) as (dispatcher, _):
        await shown_healthy(log, dispatcher)
        log.append(log.open(), a_record(1), a_record(2))
        await until(lambda: counted(dispatcher, "delivered") == 2)
        for attempts in (2, 3):
            clock.at += 10_000
            await until(lambda: len([t for t in log.tries if t.stage == "status"]) == attempts)  # noqa: B023 - within the turn
        await until(lambda: len(log.dead) == 1)
        assert counted(dispatcher, "dead") == 1
        assert not log.parked
    (dead,) = log.dead
    assert (dead.sequence, dead.attempts, dead.reason, dead.previous) == (1, 3, "status 500", 0)
    (error,) = [r.message for r in caplog.records if r.levelname == "ERROR"]
    assert "status 500; dead after 3 attempts: it is kept and not sent any more" in error
    assert f"speech-relay deliveries retry {a_record(1).id}" in error


async def test_in_strict_order_a_head_keeps_blocking(log: MemoryLog, clock: HandClock, receiver: Receiver) -> None:
    receiver.answer = first_fails
    hours = Retry(schedule=(timedelta(hours=1),) * 3, jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=hours, order="strict"), **SWEEPS) as (dispatcher, _):
        log.append(log.open(), a_record(1), a_record(2))
        for attempt in range(1, 4):
            await until(lambda: len(log.tries) == attempt)  # noqa: B023 - awaited within the turn
            assert not log.parked
            clock.at += 3_600_000
        await until(lambda: counted(dispatcher, "delivered") == 1)
    assert came(receiver) == [(1, 0)] * 4 + [(2, 1)]
    assert len(log.dead) == 1


async def test_a_parked_event_that_is_not_asked_for_any_more_is_let_go(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = first_fails
    quick = Retry(schedule=(timedelta(hours=1),), park_after=timedelta(0), jitter=0)
    ends = endpoint(receiver.url, retry=quick)
    async with dispatching(log, ends, **SWEEPS) as (dispatcher, _):
        await shown_healthy(log, dispatcher)
        log.append(log.open(), a_record(1), a_record(2))
        await until(lambda: counted(dispatcher, "delivered") == 2)
        await dispatcher.reload([endpoint(receiver.url, retry=quick, events=["transcript.*"])])
        clock.at += 3_600_000
        await until(lambda: not log.parked)
    assert came(receiver) == [(1, 0), (2, 1)]
    assert not log.dead


@pytest.mark.parametrize("narrowed", [{"rooms": ["another"]}, {"participants": ["bob"]}])
async def test_a_parked_event_of_a_stream_that_is_not_asked_for_any_more_is_let_go(
    log: MemoryLog, clock: HandClock, receiver: Receiver, narrowed: dict[str, Any]
) -> None:
    receiver.answer = first_fails
    quick = Retry(schedule=(timedelta(hours=1),), park_after=timedelta(0), jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=quick), **SWEEPS) as (dispatcher, _):
        await shown_healthy(log, dispatcher)
        log.append(log.open(), a_record(1), a_record(2))
        await until(lambda: counted(dispatcher, "delivered") == 2)
        await dispatcher.reload([endpoint(receiver.url, retry=quick, **narrowed)])
        clock.at += 3_600_000
        await until(lambda: not log.parked)
    assert came(receiver) == [(1, 0), (2, 1)]


async def test_the_failed_probe_of_an_outage_parks_nothing(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(500)
    soon = Retry(schedule=(timedelta(seconds=10),) * 20, park_after=timedelta(seconds=60), jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=soon), **SWEEPS) as (dispatcher, _):
        for name in "ABCDE":
            log.append(log.open(), a_record(1, stream=name))
        await until(lambda: len(log.tries) == 5)
        clock.at += 10_000
        await until(lambda: len(log.tries) == 10)
        for probe in range(11, 21):  # ten minutes of it
            clock.at += 60_000
            await until(lambda: len(log.tries) == probe)  # noqa: B023 - awaited within the turn
        assert not log.parked
        receiver.answer = lambda _: Answer()
        clock.at += 60_000
        await until(lambda: counted(dispatcher, "delivered") == 5)
    assert counted(dispatcher, "parked") == 0


async def test_no_more_parked_events_are_held_than_can_be_sent(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = first_fails
    hourly = Retry(schedule=(timedelta(hours=1),) * 4, park_after=timedelta(0), jitter=0)
    ends = endpoint(receiver.url, retry=hourly, concurrency=2, breaker=None)
    async with dispatching(log, ends, grace=0, **SWEEPS) as (dispatcher, lanes):
        await shown_healthy(log, dispatcher)
        for name in "ABCDE":
            log.append(log.open(), a_record(1, stream=name))
        await until(lambda: len(log.parked) == 5)
        receiver.answer = lambda _: Answer(after=30)
        clock.at += 3_600_000
        await receiver.wait(8)
        claims = lanes.calls["endpoint_states"]
        await until(lambda: lanes.calls["endpoint_states"] > claims + 3)
        assert len([one for one in log.parked if one.owner is not None]) == 2


async def test_parked_events_do_not_starve_beside_lanes_that_always_have_more(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = first_fails
    hourly = Retry(schedule=(timedelta(hours=1),) * 4, park_after=timedelta(0), jitter=0)
    busy = endpoint(receiver.url, retry=hourly, concurrency=4)
    async with dispatching(log, busy, sweep_seconds=2) as (dispatcher, lanes):
        await shown_healthy(log, dispatcher)
        for _ in range(12):
            log.append(log.open(), a_record(1))
        await until(lambda: len(log.parked) == 12)
        talking = {log.open(): 0 for _ in range(40)}

        async def go_on(_: Received) -> Answer:
            # each answered lane has more to send: there are always more lanes ready than may be in flight
            for stream in talking:
                if len(log.events[stream]) - row(log, stream).cursor < 2:
                    talking[stream] += 1
                    log.append(stream, a_record(talking[stream], stream=f"T{stream}"))
            return Answer()

        receiver.answer = go_on
        for stream in talking:
            talking[stream] += 1
            log.append(stream, a_record(talking[stream], stream=f"T{stream}"))
        clock.at += 3_600_000
        began = lanes.calls["endpoint_states"]
        await until(lambda: not log.parked)
        sweeps = lanes.calls["endpoint_states"] - began
        receiver.answer = lambda _: Answer()
    assert receiver.most_in_flight <= 4
    assert sweeps < 10, "one at a time, but not one a sweep"
