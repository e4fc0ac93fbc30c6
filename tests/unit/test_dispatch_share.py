"""How dispatchers share lanes and limits: the pure rule, and dispatchers that work on one log."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.endpoint import Breaker, Endpoint, Retry
from relay.dispatch.admission import Admission, Slots, Throttle
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.endpoint.health import Condition
from relay.dispatch.http.outcome import Failed
from relay.dispatch.policy import Blame
from relay.dispatch.share import Share, Shares, share_of
from relay.outbox.records import EVERY_STREAM, EndpointState
from tests.support import builders
from tests.support.builders import EPOCH_MS, a_record
from tests.support.dispatch.dispatching import AFleet, dispatching, endpoint, per_stream, set_at_next_look, until
from tests.support.dispatch.memory_lanes import MemoryLanes, MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver
from tests.support.outbox.outbox_store import HandClock

HOUR = 3_600_000
PROCESSES = st.lists(st.text("abcdef0123456789", min_size=4, max_size=8), min_size=1, max_size=9, unique=True)


@asynccontextmanager
async def fleet_of(
    log: MemoryLog, names: Sequence[str], *endpoints: Endpoint, **settings: Any
) -> AsyncIterator[dict[str, tuple[Dispatcher, MemoryLanes]]]:
    """Dispatchers of these names over one log; each knows the others."""
    async with AsyncExitStack() as stack:
        members = list(names)
        yield {
            name: await stack.enter_async_context(
                dispatching(log, *endpoints, lanes=MemoryLanes(log, name), fleet=AFleet(name, members), **settings)
            )
            for name in names
        }


@given(dispatchers=PROCESSES, concurrency=st.integers(1, 40), stream=st.integers(1, 1000))
def test_slots_add_up_to_the_limit_and_each_stream_has_one_owner(
    dispatchers: list[str], concurrency: int, stream: int
) -> None:
    shares = [share_of("crm", concurrency, sorted(dispatchers), me) for me in dispatchers]
    assert sum(share.slots for share in shares) == concurrency
    assert max(share.slots for share in shares) - min(share.slots for share in shares) <= 1
    assert sum(share.owns(stream) for share in shares) == 1


def test_endpoints_that_allow_one_request_are_spread_over_the_fleet() -> None:
    fleet = ["a", "b", "c"]
    owners = {name: [me for me in fleet if share_of(name, 1, fleet, me).slots] for name in map(str, range(60))}
    assert all(len(one) == 1 for one in owners.values())
    assert all(sum(one == [me] for one in owners.values()) >= 5 for me in fleet)


def test_a_dispatcher_keeps_its_share_while_it_cannot_read_who_is_there() -> None:
    fleet = AFleet("a", ["a", "b"])
    shares = Shares(fleet)
    half = shares.of("crm", 16)
    assert half.slots == 8
    fleet.members.clear()
    assert not shares.poll()
    assert shares.of("crm", 16) == half
    fleet.members.append("a")
    assert shares.poll()
    assert (shares.of("crm", 16), shares.alone) == (Share(16, EVERY_STREAM), True)


def test_a_dispatcher_that_the_others_do_not_see_yet_counts_itself() -> None:
    assert Shares(AFleet("new", ["a"])).of("crm", 16).slots == 8


def test_a_lowered_cap_keeps_what_the_throttle_has_learned() -> None:
    throttle = Throttle(16)
    throttle.record_overload(0)
    throttle.cap(12)
    assert throttle.limit == 8
    throttle.cap(4)
    assert throttle.limit == 4
    throttle.cap(0)
    assert throttle.limit == 0
    throttle.cap(16)
    assert throttle.limit == 16


async def test_nothing_is_admitted_without_a_slot_and_waiting_ends() -> None:
    admission = Admission(builders.endpoint(concurrency=2), Slots(100), HandClock())
    assert admission.try_acquire() is not None
    admission.cap(0)
    assert (admission.shut, admission.try_acquire(), await admission.acquire()) == (True, None, None)
    admission.cap(1)
    assert (admission.shut, admission.try_acquire()) == (False, None)  # the first is still in flight


def test_a_success_elsewhere_shows_that_the_event_was_to_blame() -> None:
    condition = Condition()
    broken = Failed("status", 1.0, status=500)
    condition.failed(broken, (1, 1), began_ms=EPOCH_MS, now_ms=EPOCH_MS, probe=False)
    condition.failed(broken, (2, 1), began_ms=EPOCH_MS, now_ms=EPOCH_MS + 1, probe=False)
    state = EndpointState("crm", active=True, succeeded_at=EPOCH_MS + 5, failed_at=EPOCH_MS - 5)
    condition.follow(state, EPOCH_MS + 10)
    assert condition.failing_ms(EPOCH_MS + 10) == 0
    blame = condition.failed(broken, (2, 1), began_ms=EPOCH_MS + 11, now_ms=EPOCH_MS + 12, probe=False)
    assert blame is Blame.EVENT


def test_a_failure_elsewhere_is_not_written_over_and_a_wild_clock_not_believed() -> None:
    condition = Condition()
    failing = EndpointState("crm", active=True, failing_since=EPOCH_MS, failed_at=EPOCH_MS + 5, last_error="timeout")
    condition.follow(failing, EPOCH_MS + 10)
    note = condition.note("crm")
    assert (note.failing_since, note.failed_at, note.last_error) == (EPOCH_MS, EPOCH_MS + 5, "timeout")
    condition.follow(replace(failing, succeeded_at=EPOCH_MS + 1_000_000), EPOCH_MS + 10)
    assert condition.note("crm").succeeded_at is None


def test_a_success_elsewhere_that_is_older_than_an_own_one_changes_nothing() -> None:
    condition = Condition()
    condition.succeeded(EPOCH_MS + 5)
    condition.follow(EndpointState("crm", active=True, succeeded_at=EPOCH_MS), EPOCH_MS + 10)
    assert condition.note("crm").succeeded_at == EPOCH_MS + 5


async def test_each_dispatcher_sends_its_own_streams_and_a_ring_costs_the_others_no_claim(
    log: MemoryLog, receiver: Receiver
) -> None:
    async with fleet_of(log, ("a", "b"), endpoint(receiver.url), sweep_seconds=30.0) as fleet:
        (a, lanes_a), (b, lanes_b) = fleet.values()
        await until(lambda: all(lanes.calls["claim"] for _, lanes in fleet.values()))
        before = {"a": lanes_a.calls["claim"], "b": lanes_b.calls["claim"]}
        log.append(log.open(), a_record(1, stream="1"))
        await until(lambda: len(receiver.requests) == 1)
        other = "b" if log.rows[0].owner == "a" else "a"
        assert fleet[other][1].calls["claim"] == before[other]
        for stream in range(2, 21):
            log.append(log.open(), a_record(1, stream=str(stream)))
        await until(lambda: len(receiver.requests) == 20)
        assert (a.lanes_held, b.lanes_held) == (10, 10)
        assert {row.stream % 2 for row in log.rows if row.owner == "a"} == {0}


async def test_one_request_at_a_time_reaches_an_endpoint_that_allows_one(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after=0.02)
    async with fleet_of(log, ("a", "b", "c"), endpoint(receiver.url, concurrency=1)):
        for stream in range(1, 13):
            log.append(log.open(), a_record(1, stream=str(stream)))
        await until(lambda: len(receiver.requests) == 12)
    assert receiver.most_in_flight == 1


async def test_nothing_is_sent_of_a_lane_that_was_lost_as_its_lease_was_being_renewed(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryLanes):
        """Between the decision to renew and the log, there may be a bad network."""

        async def renew(self, lanes: Iterable[tuple[int, int]], *, lease_ms: int) -> set[int]:
            asked.set()
            await go_on.wait()
            return await super().renew(lanes, lease_ms=lease_ms)

    async with dispatching(log, endpoint(receiver.url), lanes=Slow(log, "a"), linger_ms=HOUR) as (first, _):
        log.append(log.open(), a_record(1))
        await until(lambda: log.rows[0].cursor == 1)
        clock.at += 30_000
        await asked.wait()
        clock.at += 20_000
        (row,) = log.rows
        row.owner, row.fence, row.next_at = "b", row.fence + 1, clock.now_ms() + HOUR
        log.append(1, a_record(2), a_record(3))
        row.cursor = 3  # the other one has sent them
        go_on.set()
        await until(lambda: first.lanes_held == 0)
        assert per_stream(receiver.requests) == {"str_A": [1]}


async def test_one_that_stops_ends_what_is_in_flight_and_leaves_the_rest(log: MemoryLog, receiver: Receiver) -> None:
    answers = asyncio.Event()

    async def answer(_: Received) -> Answer:
        await answers.wait()
        return Answer()

    receiver.answer = answer
    async with fleet_of(log, ("a", "b"), endpoint(receiver.url)) as fleet:
        (dispatcher, _), mine = fleet["a"], share_of("crm", 16, ["a", "b"], "a")
        stream = next(number for number in (log.open(), log.open()) if mine.owns(number))
        log.append(stream, *(a_record(number) for number in range(1, 51)))
        await receiver.wait(1)
        stopping = asyncio.create_task(dispatcher.stop(3600))
        await asyncio.sleep(0)  # it has begun
        answers.set()
        async with asyncio.timeout(30):
            await stopping
        left = log.rows[stream - 1]
        assert (left.owner, left.cursor) == (None, 1), "another one may take it, and goes on behind what was sent"


async def test_what_its_owner_does_not_take_is_taken_by_another_after_two_seconds(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    fleet = AFleet("a", ["a", "busy"])
    async with dispatching(log, endpoint(receiver.url), lanes=MemoryLanes(log, "a"), fleet=fleet) as (_, lanes):
        theirs = next(n for n in (1, 2) if not share_of("crm", 16, ["a", "busy"], "a").owns(n))
        while len(log.events) < theirs:
            log.open()
        log.append(theirs, a_record(1))
        sweeps = lanes.calls["endpoint_states"]
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 2)
        assert receiver.requests == []
        clock.at += 2_000
        await until(lambda: len(receiver.requests) == 1)
        await until(lambda: log.rows[theirs - 1].owner is None)  # idle, and not its own: given back


async def test_a_backlog_is_shared_however_long_it_has_been_due(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    log.endpoints = ["crm"]
    for stream in range(1, 9):
        log.append(log.open(), *(a_record(sequence, stream=str(stream)) for sequence in (1, 2, 3)))
    clock.at += 60_000
    receiver.answer = lambda _: Answer(after=0.05)
    async with fleet_of(log, ("a", "b"), endpoint(receiver.url, concurrency=2)):
        await until(lambda: len(receiver.requests) == 2)
        assert Counter(row.owner for row in log.rows) == {"a": 4, "b": 4}
        await until(lambda: len(receiver.requests) == 24)


async def test_a_breaker_that_opens_rests_the_endpoint_for_all_and_one_probe_ends_it(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    rules = Breaker(requests=3, failing=0.7, rest=timedelta(seconds=30), window=timedelta(minutes=5))
    down = True
    receiver.answer = lambda _: Answer(500 if down else 200)
    settings: dict[str, Any] = {"breaker": rules, "order": "strict", "disable_after": None}
    async with fleet_of(log, ("a", "b"), endpoint(receiver.url, **settings)) as fleet:
        runtimes = [dispatcher._state.endpoints["crm"] for dispatcher, _ in fleet.values()]
        streams = [log.open() for _ in range(8)]
        for stream in streams:
            if runtimes[0].fleet_share.owns(stream):
                log.append(stream, a_record(1, stream=str(stream)))
        await until(lambda: log.states["crm"].resting_until == clock.now_ms() + 30_000)
        await until(lambda: all(one.admission.shut for one in runtimes))
        for stream in streams:
            if runtimes[1].fleet_share.owns(stream):
                log.append(stream, a_record(1, stream=str(stream)))
        came = len(receiver.requests)
        clock.at += 30_000
        await until(lambda: len(receiver.requests) > came)
        await until(lambda: log.states["crm"].resting_until == clock.now_ms() + 30_000)
        sweeps = {name: lanes.calls["endpoint_states"] for name, (_, lanes) in fleet.items()}
        await until(
            lambda: all(lanes.calls["endpoint_states"] > sweeps[name] + 2 for name, (_, lanes) in fleet.items())
        )
        assert len(receiver.requests) == came + 1, "more than one has probed"
        down = False
        clock.at += 30_000
        await until(lambda: all(row.cursor == 1 for row in log.rows))
        await until(lambda: not any(one.admission.probing for one in runtimes))
        await until(lambda: log.states["crm"].resting_until is None)


@pytest.mark.parametrize("by_ms", [HOUR, -HOUR])
async def test_retries_of_a_fleet_wait_as_long_as_they_would_have_when_the_clock_is_set(
    by_ms: int, log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(500)
    minutes = Retry(schedule=(timedelta(minutes=5),) * 3, jitter=0)
    async with fleet_of(log, ("a", "b"), endpoint(receiver.url, retry=minutes), sweep_seconds=0.02) as fleet:
        log.append(log.open(), a_record(1))
        await until(lambda: log.rows[0].owner is None and log.rows[0].attempts == 1)
        (leader, leading), (_, following) = fleet["a"], fleet["b"]
        commit = following._commit

        async def late(what: str) -> None:
            await commit(what)
            if what == "claim":  # a claim between the clock's setting and the leader's look is not what this is about
                await until(lambda: not clock.set_by or bool(leading.shifts))

        following._commit = late  # type: ignore[method-assign]
        set_at_next_look(clock, by_ms, leader)
        await until(lambda: bool(leading.shifts))
        await swept(fleet)
        clock.at += 290_000
        await swept(fleet)
        assert len(receiver.requests) == 1
        clock.at += 10_000
        await receiver.wait(2)
        assert [by for _, lanes in fleet.values() for by in lanes.shifts if by] == [by_ms], "one follows for all"


async def test_what_is_appended_by_a_process_that_follows_the_clock_late_is_not_held_up(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    async with fleet_of(log, ("a", "b"), endpoint(receiver.url), sweep_seconds=0.02) as fleet:
        clock.set_by -= HOUR
        await until(lambda: any(lanes.calls["shift"] for _, lanes in fleet.values()))
        await swept(fleet)
        log.clock = HandClock(clock.at)
        log.append(log.open(), a_record(1))
        log.clock = clock
        clock.at += 10_000  # a process follows within seconds
        await receiver.wait(1)


async def swept(fleet: dict[str, tuple[Dispatcher, MemoryLanes]]) -> None:
    """Until each of them has looked at the log a few times more."""
    sweeps = {name: lanes.calls["endpoint_states"] for name, (_, lanes) in fleet.items()}
    await until(lambda: all(lanes.calls["endpoint_states"] > sweeps[name] + 3 for name, (_, lanes) in fleet.items()))
