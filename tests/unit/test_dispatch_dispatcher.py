"""The dispatcher over a log in memory, posting to a real receiver."""

import asyncio
import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from standardwebhooks import Webhook

from relay.clock import SystemClock
from relay.config.endpoint import Retry
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.outcome import Outcome
from relay.dispatch.signing import new_secret
from relay.dispatch.transport import Headers, open_transport
from relay.events.envelope import Delivery
from tests.support.dispatching import dispatching, endpoint, per_stream, row, until
from tests.support.memory_lanes import MemoryLanes, MemoryLog, made
from tests.support.outbox_store import HandClock
from tests.support.receiver import Answer, Received, Receiver, receiving


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(SystemClock())


async def test_events_arrive_signed_in_order_with_the_sequence_before(log: MemoryLog, receiver: Receiver) -> None:
    secret = new_secret()
    async with dispatching(log, endpoint(receiver.url, signing="standard", secret=secret)):
        stream = log.open()
        for n in range(1, 11):
            log.append(stream, made(n))
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
        log.append(stream, made(1), made(2, "vad.speech_started"), made(3, "stt.speech_started"), made(4))
        await receiver.wait(2)
        await until(lambda: dispatcher.stats.delivered == 2)
        assert dispatcher.stats.skipped == 2
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
                log.append(stream, made(n, stream=name))
        await until(lambda: dispatcher.stats.delivered == 8 * 15)
        assert dispatcher.stats.retried > 0
        assert dispatcher.stats.found_by_sweep == 0
    for sequences in per_stream(receiver.requests).values():
        assert all(b - a in (0, 1) for a, b in pairwise(sequences))
        assert sequences[-1] == 15
    assert len(log.tries) == len(receiver.requests)


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
            log.append(stream, *(made(n, stream=name) for n in range(1, 4)))
        await receiver.wait_for(lambda: len(receiver.answered) == 24)
    assert receiver.most_in_flight == 4
    assert all(sequences == [1, 2, 3] for sequences in per_stream(receiver.requests).values())


async def test_the_next_event_waits_for_the_commit(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url)) as (_, lanes):
        held = asyncio.Event()
        settle = lanes.settle

        async def late(settlement: Any) -> None:
            await held.wait()
            await settle(settlement)

        lanes.settle = late  # type: ignore[method-assign]  # a slow disk
        stream = log.open()
        log.append(stream, made(1), made(2))
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
                log.append(stream, made(1, stream=name), made(2, stream=name))
            await receiver.wait(40, within=5)
            assert hanging.most_in_flight == 2
            await until(lambda: dispatcher.stats.delivered == 40)


async def test_of_interims_that_pile_up_the_latest_wins(log: MemoryLog, receiver: Receiver) -> None:
    go_on = asyncio.Event()

    async def answer(request: Received) -> Answer:
        await go_on.wait()
        return Answer()

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, made(1, "speech.started"))
        await receiver.wait(1)
        for n in range(2, 12):
            log.append(stream, made(n, "transcript.interim", utterance="u1", revision=n))
        go_on.set()
        await receiver.wait(2)
        log.append(stream, made(12, "transcript.final", utterance="u1", revision=12))
        await receiver.wait(3)
        await until(lambda: dispatcher.stats.delivered == 3)
        assert dispatcher.stats.skipped == 9
    assert per_stream(receiver.requests) == {"str_A": [1, 11, 12]}


async def test_an_interim_has_one_try_and_blocks_nothing(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda r: Answer(500 if r.json()["type"] == "transcript.interim" else 200)
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, made(1), made(2, "transcript.interim", utterance="u1", revision=1), made(3))
        await receiver.wait(3)
        await until(lambda: dispatcher.stats.delivered == 2)
        assert (dispatcher.stats.retried, dispatcher.stats.skipped) == (0, 1)
    assert per_stream(receiver.requests) == {"str_A": [1, 2, 3]}
    assert [r.headers["relay-previous-sequence"] for r in receiver.requests] == ["0", "1", "1"]
    assert [(t.sequence, t.number, t.stage, t.status) for t in log.tries] == [
        (1, 1, "ok", 200), (2, 1, "status", 500), (3, 1, "ok", 200),
    ]  # fmt: skip


async def test_an_expired_interim_is_not_sent(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url)):
        stream = log.open()
        gone = made(1, "transcript.interim", utterance="u", revision=1, emitted_at=SystemClock().now_ms() - 10_001)
        log.append(stream, gone, made(2))
        await receiver.wait(1)
    assert per_stream(receiver.requests) == {"str_A": [2]}


async def test_every_attempt_has_the_same_id_and_bytes_and_a_fresh_timestamp(
    log: MemoryLog, receiver: Receiver
) -> None:
    clock, secret = HandClock(SystemClock().now_ms()), new_secret()
    log.clock = clock
    receiver.answer = lambda _: Answer(200 if len(receiver.requests) == 3 else 500)
    settings: dict[str, Any] = {"signing": "standard", "secret": secret, "include": {"text": False}}
    async with dispatching(log, endpoint(receiver.url, **settings)) as (dispatcher, _):
        stream = log.open()
        log.append(stream, made(1, "transcript.final"))
        for attempt in range(1, 4):
            await receiver.wait(attempt)
            await until(lambda: len(log.tries) == attempt)  # noqa: B023 - awaited within the turn
            clock.at += 2_000
            dispatcher.ring([stream])
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
        log.append(stream, made(1), made(2))
        await receiver.wait(3)
        await until(lambda: dispatcher.stats.delivered == 1)
        assert (dispatcher.stats.retried, dispatcher.stats.dead) == (1, 1)
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
        log.append(stream, made(1))
        await receiver.wait(1)
        await until(lambda: row(log).owner is None)
    assert row(log).next_at == clock.at + 300_000
    receiver.answer = lambda _: Answer()
    async with dispatching(log, endpoint(receiver.url, retry=later)) as (dispatcher, _):
        clock.at += 299_000
        dispatcher.ring([stream])
        await asyncio.sleep(0.3)
        assert len(receiver.requests) == 1
        clock.at += 1_001
        await receiver.wait(2)
        await until(lambda: dispatcher.stats.delivered == 1)
    assert [t.number for t in log.tries] == [1, 2]
    assert row(log).attempts == 0


async def test_a_retry_is_made_when_it_is_due_and_not_a_sweep_later(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500 if len(receiver.requests) == 1 else 200)
    quick = Retry(schedule=(timedelta(milliseconds=200),), jitter=0)
    async with dispatching(log, endpoint(receiver.url, retry=quick), sweep_seconds=5):
        log.append(log.open(), made(1))
        await receiver.wait(2)
    first, second = receiver.requests
    assert 0.19 < second.at - first.at < 0.6


async def test_a_lost_ring_costs_a_sweep_and_is_counted(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        held, fresh = log.open(), log.open()
        log.append(held, made(1))
        await until(lambda: dispatcher.stats.delivered == 1)
        assert dispatcher.stats.found_by_sweep == 0
        log.append(held, made(2), ring=False)
        await receiver.wait(2)
        log.append(fresh, made(1, stream="B"), ring=False)
        await receiver.wait(3)
        await until(lambda: dispatcher.stats.found_by_sweep == 2)


async def test_rings_in_time_are_never_counted_as_lost(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url), sweep_seconds=0.06) as (dispatcher, _):
        for n in range(1, 101):
            stream = log.open()
            log.append(stream, made(1, stream=str(n)))
            await asyncio.sleep(0.003)
            log.append(stream, made(2, stream=str(n)))
        await receiver.wait(200)
        await asyncio.sleep(0.1)
        assert dispatcher.stats.found_by_sweep == 0


async def test_what_was_skipped_at_the_end_is_written_down_when_the_lane_is_let_go(
    log: MemoryLog, receiver: Receiver
) -> None:
    async with dispatching(log, endpoint(receiver.url, events=["speech.*"]), linger_ms=50):
        stream = log.open()
        log.append(stream, made(1), *(made(n, "vad.speech_started") for n in range(2, 200)))
        await until(lambda: row(log).owner is None and row(log).cursor == 199)
        assert row(log).next_at is None
        log.append(stream, made(200))
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
            log.append(stream, *(made(n, stream=name) for n in range(1, length + 1)))
        async with dispatching(log, *ends) as (dispatcher, _):
            await until(lambda: dispatcher.stats.delivered == 2 * stream_count * length, within=60)
    for each in (receiver, slow):
        came = per_stream(each.requests)
        assert all(sequences == list(range(1, length + 1)) for sequences in came.values())
        assert len(came) == stream_count


async def test_a_log_that_breaks_for_a_while_stops_nothing_for_good(
    log: MemoryLog, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, lanes):
        stream = log.open()
        log.append(stream, made(1))
        await until(lambda: dispatcher.stats.delivered == 1)
        lanes.broken = True
        log.append(stream, made(2))
        other = log.open()
        log.append(other, made(1, stream="B"))
        await until(lambda: "the disk is full" in caplog.text)
        await asyncio.sleep(0.25)
        lanes.broken = False
        await until(lambda: dispatcher.stats.delivered == 3)
    assert sorted(r.id for r in receiver.requests) == ["evt_A_1", "evt_A_2", "evt_B_1"]


async def test_a_settlement_that_failed_is_made_up_for_without_sending_again(
    log: MemoryLog, receiver: Receiver
) -> None:
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, lanes):

        async def answer(_: Received) -> Answer:
            lanes.broken = len(receiver.requests) == 1
            return Answer()

        receiver.answer = answer
        log.append(log.open(), made(1), made(2))
        await until(lambda: dispatcher.stats.delivered == 1)
        await asyncio.sleep(0.25)
        assert len(receiver.requests) == 1
        lanes.broken = False
        await receiver.wait(2)
    assert [r.id for r in receiver.requests] == ["evt_A_1", "evt_A_2"]
    assert row(log).cursor == 2


async def test_a_lane_that_was_taken_over_is_left_alone(log: MemoryLog, receiver: Receiver) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: Received) -> Answer:
        arrived.set()
        await go_on.wait()
        return Answer()

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        log.append(log.open(), made(1), made(2))
        await arrived.wait()
        row(log).fence += 1
        row(log).owner, row(log).next_at = "there", SystemClock().now_ms() + 60_000
        go_on.set()
        await until(lambda: dispatcher.stats.fenced == 1)
    assert row(log).cursor == 0
    assert len(receiver.requests) == 1


async def test_a_process_that_stood_still_past_its_lease_sends_nothing_more(log: MemoryLog, receiver: Receiver) -> None:
    clock = HandClock()
    log.clock = clock
    go_on = asyncio.Event()

    async def answer(_: Received) -> Answer:
        await go_on.wait()
        return Answer()

    receiver.answer = answer
    async with dispatching(log, endpoint(receiver.url, concurrency=1), sweep_seconds=60):
        first, second = log.open(), log.open()
        log.append(first, made(1))
        log.append(second, made(1, stream="B"))
        await receiver.wait(1)
        clock.at += 46_000
        go_on.set()
        await until(lambda: row(log, first).cursor == 1)
        await asyncio.sleep(0.1)
        assert len(receiver.requests) == 1


async def test_stop_sends_what_is_there_and_gives_the_lanes_back(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after=0.005)
    async with dispatching(log, endpoint(receiver.url, concurrency=4)) as (dispatcher, _):
        streams = {log.open(): name for name in "ABCDEFGH"}
        for stream, name in streams.items():
            log.append(stream, *(made(n, stream=name) for n in range(1, 6)))
        await dispatcher.stop(10)
        assert dispatcher.stats.delivered == 40
    assert all((r.owner, r.next_at, r.cursor) == (None, None, 5) for r in log.rows)


async def test_stop_does_not_wait_for_retries(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500)
    later = Retry(schedule=(timedelta(hours=1),))
    async with dispatching(log, endpoint(receiver.url, retry=later)) as (dispatcher, _):
        log.append(log.open(), made(1))
        await receiver.wait(1)
        async with asyncio.timeout(2):
            await dispatcher.stop(60)
    assert row(log).attempts == 1
    assert row(log).owner is None


async def test_stop_breaks_off_at_the_end_of_the_grace(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after=30)
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        log.append(log.open(), made(1))
        await receiver.wait(1)
        async with asyncio.timeout(3):
            await dispatcher.stop(0.2)
    assert (row(log).cursor, row(log).attempts, row(log).owner) == (0, 0, None)
    assert (row(log).next_at or 0) <= SystemClock().now_ms()


async def test_a_restart_goes_on_where_it_stopped(log: MemoryLog, receiver: Receiver) -> None:
    log.endpoints = ["crm"]
    stream = log.open()
    log.append(stream, *(made(n) for n in range(1, 101)))
    receiver.answer = lambda _: Answer(after=0.002)
    async with dispatching(log, endpoint(receiver.url), grace=0):
        await receiver.wait(20)
    sent = len(receiver.requests)
    assert sent < 100
    async with dispatching(log, endpoint(receiver.url)):
        await receiver.wait_for(lambda: receiver.requests[-1].id == "evt_A_100")
    assert sorted({int(r.id.rpartition("_")[2]) for r in receiver.requests}) == list(range(1, 101))
    assert len(receiver.requests) <= 101


async def test_a_bug_in_a_worker_ends_the_run_and_gives_the_lanes_back(log: MemoryLog) -> None:
    class Broken:
        async def post(self, url: object, headers: Headers, body: bytes, deadline: float) -> Outcome:
            raise ZeroDivisionError

        async def aclose(self) -> None: ...

    log.endpoints = ["crm"]
    log.append(log.open(), made(1))
    dispatcher = Dispatcher(
        MemoryLanes(log), [endpoint("http://127.0.0.1:9/")], clock=SystemClock(), open_transport=lambda _: Broken()
    )
    with pytest.raises(ExceptionGroup) as bugs:
        await dispatcher.run()
    assert bugs.group_contains(ZeroDivisionError)
    assert row(log).owner is None


async def test_a_bug_in_a_callback_ends_the_run(log: MemoryLog, receiver: Receiver) -> None:
    log.endpoints = ["crm"]
    log.append(log.open(), made(1))
    lanes = MemoryLanes(log)

    async def broken(*_: object) -> list[Any]:
        raise ZeroDivisionError

    lanes.read = broken  # type: ignore[method-assign, assignment]  # a bug in the store
    dispatcher = Dispatcher(lanes, [endpoint(receiver.url)], clock=SystemClock(), open_transport=open_transport)
    with pytest.raises(ExceptionGroup) as bugs:
        await dispatcher.run()
    assert bugs.group_contains(ZeroDivisionError)


async def test_one_wide_record_per_attempt_without_what_was_said(
    log: MemoryLog, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "relay.dispatch.attempt")
    receiver.answer = lambda _: Answer(200 if len(receiver.requests) > 1 else 503)
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        log.append(log.open(participant="alice@example.com"), made(1, "transcript.final", text="my secret"))
        await until(lambda: dispatcher.stats.delivered == 1)
    failed, delivered = [vars(r) for r in caplog.records if r.name == "relay.dispatch.attempt"]
    assert (failed["levelname"], failed["stage"], failed["status"], failed["attempt"]) == ("WARNING", "status", 503, 1)
    assert (failed["verdict"], failed["retry_at"] is not None) == ("RetryAt", True)
    assert (delivered["levelname"], delivered["stage"], delivered["attempt"]) == ("DEBUG", "ok", 2)
    assert delivered["event_id"] == "evt_A_1"
    assert delivered["elapsed_ms"] > 0
    for record in (failed, delivered):
        assert "my secret" not in str(record)
        assert "alice" not in str(record)


def test_the_twin_knows_what_latest_means() -> None:
    assert made(1, "transcript.interim").delivery is Delivery.LATEST
