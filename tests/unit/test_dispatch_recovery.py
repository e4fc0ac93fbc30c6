"""An endpoint that was down gets what it has missed when it is back: at once, in order, parked events included."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from relay.config.endpoint import Retry
from relay.dispatch.http.outcome import Delivered, Failed, Outcome
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, per_stream, row, until
from tests.support.dispatch.memory_lanes import Aside, MemoryLanes, MemoryLog
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_store import HandClock

SWEEPS: dict[str, Any] = {"sweep_seconds": 0.02}
DEFAULT = Retry(jitter=0)
HOURLY = Retry(schedule=(timedelta(hours=1),) * 12, park_after=timedelta(minutes=5), jitter=0)
MINUTES = 60_000


class Line:
    """A transport to a receiver that can be cut: connections are refused then, and requests answered nothing."""

    def __init__(self) -> None:
        self.cut: Failed | None = None
        self.came: list[tuple[str, int, int]] = []
        """(stream, sequence, relay-previous-sequence) of what arrived."""
        self.tried = 0

    def __call__(self, _: object) -> "Line":
        return self

    async def post(self, _url: object, headers: list[tuple[bytes, bytes]], body: bytes, _timeout: float) -> Outcome:
        await asyncio.sleep(0)
        self.tried += 1
        if self.cut is not None:
            return self.cut
        stream, sequence = dict(headers)[b"webhook-id"].decode().removeprefix("evt_").split("_")
        self.came.append((stream, int(sequence), int(dict(headers)[b"relay-previous-sequence"])))
        return Delivered(200, 1.0)

    async def aclose(self) -> None: ...


def sequences(line: Line) -> dict[str, list[int]]:
    came: dict[str, list[int]] = {}
    for stream, sequence, _ in line.came:
        came.setdefault(stream, []).append(sequence)
    return came


OUTAGES = [
    Failed("connect", 1.0, detail="Connection refused"),
    Failed("dns", 1.0),
    Failed("timeout", 15_000.0),
    Failed("status", 1.0, status=502),
    Failed("status", 1.0, status=500),
]


@pytest.mark.parametrize(
    ("outage", "settings"),
    [*((outage, {}) for outage in OUTAGES), (OUTAGES[0], {"order": "strict"}), (OUTAGES[0], {"breaker": None})],
    ids=str,
)
async def test_an_outage_of_an_hour_parks_nothing_and_everything_arrives_in_order_after_it(
    log: MemoryLog, clock: HandClock, outage: Failed, settings: dict[str, Any]
) -> None:
    line = Line()
    crm = endpoint("http://127.0.0.1:9/", retry=DEFAULT, **settings)
    async with dispatching(log, crm, open_transport=line, **SWEEPS) as (dispatcher, lanes):
        streams = {name: log.open() for name in "ABC"}
        for name, stream in streams.items():
            log.append(stream, a_record(1, stream=name))
        await until(lambda: len(line.came) == 3)
        line.cut = outage
        began, appended = clock.at, 1
        for minute in (1, 2, 3, 4, 5, 6, 10, 20, 30, 45, 60):
            clock.at = began + minute * MINUTES
            if minute % 5 == 0:
                appended += 1
                for name, stream in streams.items():
                    log.append(stream, a_record(appended, stream=name))
            tried = lanes.calls["endpoint_states"]
            await until(lambda: lanes.calls["endpoint_states"] > tried + 2)  # noqa: B023 - awaited within the turn
        assert counted(dispatcher, "parked") == counted(dispatcher, "dead") == 0
        line.cut = None
        clock.at += 30_000  # what the breaker, or the shortest wait of an outage, has left
        await until(lambda: len(line.came) == 3 * appended)
    every = list(range(1, appended + 1))
    assert sequences(line) == dict.fromkeys("ABC", every)
    assert sorted(line.came) == [(name, n, n - 1) for name in "ABC" for n in every]


async def test_events_that_wait_for_hours_are_sent_at_the_first_success(log: MemoryLog, clock: HandClock) -> None:
    line = Line()
    async with dispatching(log, endpoint("http://127.0.0.1:9/", retry=HOURLY), open_transport=line, **SWEEPS):
        other, stream = log.open(), log.open()
        log.append(other, a_record(1, stream="B"))
        await until(lambda: len(line.came) == 1)
        line.cut = Failed("status", 1.0, status=500)
        # beside a success that short ago nobody can know that this is an outage
        log.append(stream, a_record(1, stream="A"), a_record(2, stream="A"))
        await until(lambda: row(log, stream).attempts == 1 and row(log, stream).owner is None)
        assert not row(log, stream).outage
        clock.at += 11_000
        log.append(other, a_record(2, stream="B"))
        await until(lambda: row(log, other).attempts == 1 and row(log, other).owner is None)
        line.cut = None
        clock.at += 30_000
        await until(lambda: len(line.came) == 4)
    assert sequences(line) == {"B": [1, 2], "A": [1, 2]}


async def test_an_event_that_fails_beside_a_healthy_endpoint_keeps_to_its_schedule(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda request: Answer(500 if request.json()["id"] == "evt_A_1" else 200)
    async with dispatching(log, endpoint(receiver.url, retry=HOURLY), **SWEEPS) as (dispatcher, lanes):
        other, stream = log.open(), log.open()
        log.append(other, a_record(1, stream="B"))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        log.append(stream, a_record(1, stream="A"), a_record(2, stream="A"))
        await until(lambda: row(log, stream).attempts == 1 and row(log, stream).owner is None)
        for sequence in range(2, 40):
            clock.at += 9_000
            log.append(other, a_record(sequence, stream="B"))
            await until(lambda: row(log, other).cursor == sequence)  # noqa: B023 - awaited within the turn
            sweeps = lanes.calls["endpoint_states"]
            await until(lambda: lanes.calls["endpoint_states"] > sweeps + 1)  # noqa: B023 - as above
        tries = [attempt for attempt in log.tries if attempt.lane == row(log, stream).id and attempt.stage != "ok"]
        assert len(tries) == 2, "at once, and when it is parked"
        (parked,) = log.parked
        assert (parked.sequence, parked.attempts) == (1, 2)
        assert per_stream(receiver.requests)["str_A"] == [1, 1, 2]


async def test_an_event_that_was_parked_before_its_stream_went_on_is_sent_first(
    log: MemoryLog, clock: HandClock
) -> None:
    line = Line()
    line.cut = Failed("status", 1.0, status=500)
    async with dispatching(log, endpoint("http://127.0.0.1:9/", retry=HOURLY), open_transport=line, **SWEEPS):
        stream = log.open()
        log.append(stream, a_record(1), a_record(2), a_record(3))
        await until(lambda: len(log.tries) == 1)
        clock.at += 5 * MINUTES
        await until(lambda: len(log.tries) == 3)  # parked, for it failed alone; then the next one fails too
        await until(lambda: not log.parked and row(log, stream).owner is None)
        assert row(log, stream).cursor == 0
        line.cut = None
        clock.at += 30_000
        await until(lambda: len(line.came) == 3)
    assert line.came == [("A", 1, 0), ("A", 2, 1), ("A", 3, 2)]


async def test_parked_events_are_due_at_once_when_the_endpoint_recovers(log: MemoryLog, clock: HandClock) -> None:
    line = Line()
    in_three_hours = clock.at + 3 * 60 * MINUTES
    log.endpoints.append("crm")
    streams = {name: log.open() for name in "AB"}
    for name, stream in streams.items():
        log.events[stream] = [a_record(n, stream=name) for n in range(1, 4)]
        lane = row(log, stream)
        lane.cursor, lane.last_sent = 3, 3
        for sequence in (1, 2):  # and the third was delivered
            log.parked.append(Aside(lane.id, sequence, "crm", 7, "status 503", sequence - 1, in_three_hours, clock.at))
    lanes = MemoryLanes(log)
    async with dispatching(log, endpoint("http://127.0.0.1:9/"), lanes=lanes, open_transport=line, **SWEEPS):
        log.append(log.open(), a_record(1, stream="C"))
        await until(lambda: len(line.came) == 5)
        await until(lambda: not log.parked)
    assert sequences(line) == {"C": [1], "A": [1, 2], "B": [1, 2]}


async def test_an_endpoint_that_recovers_gets_no_more_at_once_than_its_concurrency(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(503)
    crm = endpoint(receiver.url, retry=DEFAULT, concurrency=3)
    async with dispatching(log, crm, **SWEEPS) as (dispatcher, lanes):
        for name in range(200):
            log.append(log.open(), a_record(1, stream=f"S{name}"))
        for _ in range(10):
            clock.at += 10_000
            sweeps = lanes.calls["endpoint_states"]
            await until(lambda: lanes.calls["endpoint_states"] > sweeps + 2)  # noqa: B023 - awaited within the turn
        receiver.most_in_flight = 0
        receiver.answer = lambda _: Answer(after=0.001)
        clock.at += 30_000
        await until(lambda: counted(dispatcher, "delivered") == 200)
    assert receiver.most_in_flight <= 3


async def test_what_hung_in_an_outage_does_not_wait_for_minutes_after_it(log: MemoryLog, clock: HandClock) -> None:
    line, in_flight, release = Line(), asyncio.Event(), asyncio.Event()
    hung = Failed("timeout", 15_000.0)

    async def hang(url: object, headers: list[tuple[bytes, bytes]], body: bytes, within: float) -> Outcome:
        if dict(headers)[b"webhook-id"] == b"evt_A_1" and not release.is_set():
            in_flight.set()
            await release.wait()
            return hung
        return await Line.post(line, url, headers, body, within)

    line.post = hang  # type: ignore[method-assign,assignment]
    crm = endpoint("http://127.0.0.1:9/", retry=HOURLY)
    async with dispatching(log, crm, open_transport=line, **SWEEPS):
        line.cut = hung
        other, stream = log.open(), log.open()
        log.append(other, a_record(1, stream="B"))
        await until(lambda: row(log, other).attempts == 1 and row(log, other).owner is None)
        clock.at += 20_000
        log.append(stream, a_record(1, stream="A"))
        await in_flight.wait()
        line.cut = None
        clock.at += 15_000
        await until(lambda: line.came == [("B", 1, 0)])
        release.set()
        await until(lambda: row(log, stream).attempts == 1 and row(log, stream).owner is None)
        clock.at += 1_000
        await until(lambda: len(line.came) == 2)


async def test_a_recovery_that_the_log_refused_is_told_again(log: MemoryLog, clock: HandClock) -> None:
    line, lanes = Line(), MemoryLanes(log)
    failed = 0
    recover = lanes.recover

    async def refused_once(endpoint: str, *, since: int | None) -> int:
        nonlocal failed
        failed += 1
        lanes.broken = failed == 1
        try:
            return await recover(endpoint, since=since)
        finally:
            lanes.broken = False

    lanes.recover = refused_once  # type: ignore[method-assign]
    crm = endpoint("http://127.0.0.1:9/", retry=HOURLY)
    async with dispatching(log, crm, lanes=lanes, open_transport=line, **SWEEPS):
        log.append(log.open(), a_record(1, stream="A"))
        await until(lambda: lanes.calls["recover"] == 2)
