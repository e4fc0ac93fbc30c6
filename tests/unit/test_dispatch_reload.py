"""Endpoints that come, change and go while others are sent to."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.dispatch.http.transport import HttpTransport, open_transport
from relay.errors import ConfigError, OutboxError
from relay.outbox.records import EndpointState
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, per_stream, until
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver

SWEEPS: dict[str, Any] = {"sweep_seconds": 0.02}


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(SystemClock())


class Opened:
    """Which transports were opened, and which are closed again."""

    def __init__(self) -> None:
        self.all: list[tuple[str, HttpTransport]] = []
        self.closed: list[int] = []

    def __call__(self, one: Endpoint) -> HttpTransport:
        transport, number = open_transport(one), len(self.all)
        close = transport.aclose

        async def aclose() -> None:
            self.closed.append(number)
            await close()

        transport.aclose = aclose  # type: ignore[method-assign]  # what is closed is noted
        self.all.append((one.name, transport))
        return transport


def held_back(receiver: Receiver) -> asyncio.Event:
    go_on = asyncio.Event()

    async def answer(_: Received) -> Answer:
        await go_on.wait()
        return Answer()

    receiver.answer = answer
    return go_on


async def test_an_endpoint_that_is_added_gets_what_comes_from_then_on(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(f"{receiver.url}/old", "old"), sweep_seconds=60) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1))
        await receiver.wait(1)
        await dispatcher.reload([endpoint(f"{receiver.url}/old", "old"), endpoint(f"{receiver.url}/new", "new")])
        log.append(stream, a_record(2), a_record(3))
        await until(lambda: counted(dispatcher, "delivered") == 5)
        assert dispatcher.metrics.rings_lost.value() == 0
    paths = [(r.path, r.json()["stream"]["sequence"]) for r in receiver.requests]
    assert [n for path, n in paths if path == "/old"] == [1, 2, 3]
    assert [n for path, n in paths if path == "/new"] == [2, 3]


async def test_what_an_added_endpoint_accepts_before_the_next_sweep_counts(log: MemoryLog, receiver: Receiver) -> None:
    now = log.clock.now_ms()
    log.states["crm"] = EndpointState("crm", active=False, failing_since=now - 4 * 86_400_000, failed_at=now)
    other = endpoint(receiver.url, "other")
    async with dispatching(log, other, sweep_seconds=0.5) as (dispatcher, lanes):
        await dispatcher.reload([endpoint(receiver.url), other])
        log.append(log.open(), a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 2)
        sweeps = lanes.calls["endpoint_states"]
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 1)
    assert log.states["crm"].failing_since is None


async def test_an_endpoint_that_is_added_while_the_log_is_asked_gets_its_own_answer(
    log: MemoryLog, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_since = log.clock.now_ms() - 4 * 86_400_000
    log.states["crm"] = EndpointState("crm", active=False, failing_since=failing_since, failed_at=log.clock.now_ms())
    other = endpoint(receiver.url, "other")
    async with dispatching(log, other, **SWEEPS) as (dispatcher, lanes):
        ask, asked = lanes.endpoint_states, asyncio.Event()

        async def slowly(names: Collection[str]) -> dict[str, EndpointState]:
            if "crm" not in names:
                asked.set()
                await until(lambda: "crm" in dispatcher._state.endpoints)
            return await ask(names)

        monkeypatch.setattr(lanes, "endpoint_states", slowly)
        await asked.wait()
        await dispatcher.reload([endpoint("http://127.0.0.1:9/"), other])
        log.append(log.open(), a_record(1))
        await until(lambda: counted(dispatcher, "retried") >= 1)
    assert log.states["crm"].failing_since == failing_since


async def test_a_change_holds_for_lanes_that_are_held_and_breaks_nothing_off(
    log: MemoryLog, receiver: Receiver
) -> None:
    opened = Opened()
    go_on = held_back(receiver)
    before = endpoint(f"{receiver.url}/before")
    async with dispatching(log, before, open_transport=opened, sweep_seconds=60) as (dispatcher, _):
        stream = log.open()
        log.append(stream, *(a_record(n) for n in range(1, 4)), a_record(4, "vad.speech_started"), a_record(5))
        await receiver.wait(1)
        await dispatcher.reload([endpoint(f"{receiver.url}/after", events=["speech.*"])])
        assert opened.closed == []
        go_on.set()
        await until(lambda: counted(dispatcher, "delivered") == 4)
        assert opened.closed == [0]
        assert counted(dispatcher, "retried") == 0
    assert [(r.path, r.json()["stream"]["sequence"]) for r in receiver.requests] == [
        ("/before", 1), ("/after", 2), ("/after", 3), ("/after", 5),
    ]  # fmt: skip
    assert opened.closed == [0, 1]


async def test_what_did_not_change_keeps_its_connections(log: MemoryLog, receiver: Receiver) -> None:
    opened, same = Opened(), endpoint(receiver.url)
    async with dispatching(log, same, open_transport=opened) as (dispatcher, _):
        await dispatcher.reload([endpoint(receiver.url), endpoint(receiver.url, "other")])
    assert [name for name, _ in opened.all] == ["crm", "other"]


async def test_an_endpoint_that_is_removed_gets_no_new_attempt_and_its_last_ones_count(
    log: MemoryLog, receiver: Receiver
) -> None:
    opened = Opened()
    go_on = held_back(receiver)
    ends = [endpoint(receiver.url, "gone", concurrency=2), endpoint("http://127.0.0.1:9/", "stays")]
    async with dispatching(log, *ends, open_transport=opened, **SWEEPS) as (dispatcher, _):
        streams = {log.open(): name for name in "ABCDE"}
        for stream, name in streams.items():
            log.append(stream, a_record(1, stream=name), a_record(2, stream=name))
        await receiver.wait(2)
        await dispatcher.reload([ends[1]])
        rows = [row for row in log.rows if row.endpoint == "gone"]
        await until(lambda: len([row for row in rows if row.owner is not None]) == 2)
        go_on.set()
        await until(lambda: all(row.owner is None for row in rows))
        await until(lambda: opened.closed == [0])
        assert sorted(row.cursor for row in rows) == [0, 0, 0, 1, 1]
        assert all(row.next_at is not None for row in rows)
        assert len(receiver.requests) == 2
        await dispatcher.reload(ends)
        await until(lambda: counted(dispatcher, "delivered") == 10)
    came = per_stream(receiver.requests)
    assert all(sequences == [1, 2] for sequences in came.values())
    assert len(came) == 5


async def test_concurrency_follows_up_and_down(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after=0.02)
    async with dispatching(log, endpoint(receiver.url, concurrency=2)) as (dispatcher, _):
        sent = 0
        for concurrency in (2, 6, 1):
            await dispatcher.reload([endpoint(receiver.url, concurrency=concurrency)])
            receiver.most_in_flight = 0
            for number in range(12):
                log.append(log.open(), a_record(1, stream=f"{sent}-{number}"))
            sent += 12
            await until(lambda: counted(dispatcher, "delivered") == sent)  # noqa: B023 - awaited within the turn
            assert receiver.most_in_flight == concurrency


async def test_a_reload_that_cannot_be_done_leaves_everything_as_it_was(log: MemoryLog, receiver: Receiver) -> None:
    opened = Opened()
    async with dispatching(log, endpoint(receiver.url), open_transport=opened) as (dispatcher, lanes):
        with pytest.raises(ConfigError):
            await dispatcher.reload([endpoint(f"{receiver.url}/new"), endpoint(receiver.url, "x", signing="standard")])
        lanes.broken = True
        with pytest.raises(OutboxError):
            await dispatcher.reload([endpoint(f"{receiver.url}/new")])
        lanes.broken = False
        assert opened.closed == [1, 2]
        log.append(log.open(), a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
    assert [r.path for r in receiver.requests] == ["/"]


async def test_a_longer_timeout_gets_longer_leases(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url), **SWEEPS) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        await dispatcher.reload([endpoint(receiver.url, timeout="60s")])
        log.append(stream, a_record(2))
        await until(lambda: counted(dispatcher, "delivered") == 2)


async def test_reloading_over_and_over_under_load_loses_and_doubles_nothing(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after=0.001)
    one = endpoint(f"{receiver.url}/one", "one", concurrency=4)
    async with dispatching(log, one, **SWEEPS) as (dispatcher, _):
        streams = {log.open(): name for name in "ABCDEFGH"}
        for number in range(1, 41):
            for stream, name in streams.items():
                log.append(stream, a_record(number, stream=name))
            ends = [endpoint(f"{receiver.url}/one", "one", concurrency=1 + number % 5)]
            if number % 3:
                ends.append(endpoint(f"{receiver.url}/two", "two"))
            await dispatcher.reload(ends if number % 7 else ends[1:])
            await asyncio.sleep(0.005)
        await dispatcher.reload([one, endpoint(f"{receiver.url}/two", "two")])
        await until(lambda: all(row.cursor == 40 for row in log.rows))
    for path in ("/one", "/two"):
        came = per_stream([request for request in receiver.requests if request.path == path])
        assert all(sequences == list(range(sequences[0], 41)) for sequences in came.values()), path
        assert len(came) == 8


async def test_a_change_of_rooms_holds_for_lanes_that_are_held(log: MemoryLog, receiver: Receiver) -> None:
    async with dispatching(log, endpoint(receiver.url), sweep_seconds=60) as (dispatcher, _):
        stream = log.open()
        log.append(stream, a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        await dispatcher.reload([endpoint(receiver.url, rooms=["elsewhere"])])
        log.append(stream, a_record(2))
        await until(lambda: counted(dispatcher, "skipped") == 1)
    assert len(receiver.requests) == 1


async def test_what_the_former_url_answers_late_says_nothing_about_the_new_one(
    log: MemoryLog, receiver: Receiver
) -> None:
    go_on = asyncio.Event()

    async def answer(request: Received) -> Answer:
        if request.path == "/new":
            return Answer()
        await go_on.wait()
        return Answer(410 if request.json()["stream"]["id"] == "str_A" else 500)

    receiver.answer = answer
    strict: dict[str, Any] = {"breaker": {"requests": 1}, "disable_after": "1ms"}
    async with dispatching(log, endpoint(f"{receiver.url}/old", **strict), **SWEEPS) as (dispatcher, _):
        for name in "ABC":
            log.append(log.open(), a_record(1, stream=name))
        await receiver.wait(3)
        await dispatcher.reload([endpoint(f"{receiver.url}/new", **strict)])
        go_on.set()
        await until(lambda: counted(dispatcher, "delivered") == 3)
    assert [r.path for r in receiver.requests] == ["/old"] * 3 + ["/new"] * 3
    assert log.states["crm"].disabled_at is None


async def test_what_waits_for_a_removed_endpoint_is_released_at_once_and_its_workers_end(
    log: MemoryLog, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(after=0.05)
    ends = [endpoint(receiver.url, "gone", concurrency=1), endpoint(receiver.url, "stays", events=["ping"])]
    async with dispatching(log, ends[1], sweep_seconds=60) as (dispatcher, _):
        await dispatcher.reload(ends)
        await until(lambda: [task for task in asyncio.all_tasks() if working_for(task, "gone")] != [])
        for name in "ABCDE":
            log.append(log.open(), a_record(1, stream=name))
        await receiver.wait(1)
        rows = [row for row in log.rows if row.endpoint == "gone"]
        await until(lambda: len([row for row in rows if row.owner is not None]) == 5)
        await dispatcher.reload(ends[1:])
        await until(lambda: len([row for row in rows if row.owner is not None]) <= 1)
        assert len(receiver.answered) == 0
        await receiver.wait_for(lambda: len(receiver.answered) == 1)
        await until(lambda: not [task for task in asyncio.all_tasks() if working_for(task, "gone")])


def working_for(task: asyncio.Task[Any], name: str) -> bool:
    """Whether a worker of this endpoint still runs."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    endpoint = frame.f_locals.get("endpoint") if frame else None
    return getattr(endpoint, "name", None) == name
