"""How lanes are given back: to a dispatcher that joins, and to a log that refuses it at first."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from relay.dispatch.delivery import claims
from relay.dispatch.work import Phase
from relay.errors import OutboxError
from relay.outbox.records import Lane, Settlement
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import AFleet, dispatching, endpoint, per_stream, row, until
from tests.support.dispatch.memory_lanes import MemoryLanes, MemoryLog
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_store import HandClock


@pytest.fixture
def log(clock: HandClock) -> MemoryLog:
    return MemoryLog(clock)


class RefusesOneRelease(MemoryLanes):
    """The log cannot be written at the first release, nor before it where a lane is."""

    _settled = False

    async def settle(self, settlement: Settlement, *, awaited: bool = True) -> None:
        self.broken = not settlement.tries and not self._settled
        self._settled |= self.broken
        try:
            await super().settle(settlement, awaited=awaited)
        finally:
            self.broken = False

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        self.broken = not self.calls["release"]
        try:
            await super().release(lanes)
        finally:
            self.broken = False


class SlowToRelease(MemoryLanes):
    """Releases once it is told to."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        self.asked.set()
        await self.go_on.wait()
        await super().release(lanes)


async def test_a_dispatcher_that_joins_gets_its_share_and_one_that_ends_leaves_it(
    log: MemoryLog, receiver: Receiver
) -> None:
    members, ended = ["a"], list[str]()
    shared: dict[str, Any] = {"lanes": MemoryLanes(log, "a"), "fleet": AFleet("a", members, ended)}
    async with dispatching(log, endpoint(receiver.url), **shared) as (first, lanes):
        for stream in range(1, 11):
            log.append(log.open(), a_record(1, stream=str(stream)))
        await until(lambda: first.lanes_held == 10)
        members.append("b")
        await until(lambda: first.lanes_held == 5)
        assert {row.owner for row in log.rows if row.stream % 2} == {None}
        for row in log.rows:
            if row.owner is None:  # as the other one claims them
                row.owner, row.fence, row.next_at = "b", row.fence + 1, log.clock.now_ms() + 45_000
        for stream in range(1, 11):
            log.append(stream, a_record(2, stream=str(stream)))
        await until(lambda: len(receiver.requests) == 15)
        members.remove("b")
        ended.append("b")
        await until(lambda: len(receiver.requests) == 20)
        assert lanes.calls["free"] == 1
        assert first.metrics.rings_lost.value() == 0
    assert all(came == [1, 2] for came in per_stream(receiver.requests).values())


async def test_a_dispatcher_that_joins_gets_its_share_though_the_log_refused_it_once(
    log: MemoryLog, receiver: Receiver
) -> None:
    members = ["a"]
    shared: dict[str, Any] = {"lanes": RefusesOneRelease(log, "a"), "fleet": AFleet("a", members)}
    async with dispatching(log, endpoint(receiver.url), **shared) as (first, lanes):
        for stream in range(1, 11):
            log.append(log.open(), a_record(1, stream=str(stream)))
        await until(lambda: all(row.cursor == 1 for row in log.rows))
        members.append("b")
        await until(lambda: {row.owner for row in log.rows if row.stream % 2} == {None})  # no lease ends meanwhile
        assert (first.lanes_held, lanes.calls["release"]) == (5, 2)


async def test_what_waits_for_a_worker_goes_to_a_dispatcher_that_joins_and_nothing_else(
    log: MemoryLog, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(after=3600)
    members = ["a"]
    shared: dict[str, Any] = {"lanes": MemoryLanes(log, "a"), "fleet": AFleet("a", members), "grace": 0}
    async with dispatching(log, endpoint(receiver.url, concurrency=2), **shared) as (first, _):
        for stream in range(1, 11):
            log.append(log.open(), a_record(1, stream=str(stream)))
        await receiver.wait(2)
        await until(lambda: all(row.owner == "a" for row in log.rows))
        sending = {lane.id for lane in first._state.lanes.values() if lane.phase is Phase.SENDING}
        fences = [row.fence for row in log.rows]
        members.append("b")
        others = {row.id for row in log.rows if row.stream % 2} - sending
        await until(lambda: {row.id for row in log.rows if row.owner is None} == others)
        assert [row.fence for row in log.rows] == fences, "its own were released, too"


async def test_no_worker_takes_a_lane_that_is_being_given_back(log: MemoryLog, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after=60)
    async with dispatching(log, endpoint(receiver.url, concurrency=1), grace=0) as (dispatcher, _):
        for stream in (log.open(), log.open()):
            log.append(stream, a_record(1, stream=str(stream)))
        lanes = dispatcher._state.lanes
        await until(lambda: {lane.phase for lane in lanes.values()} == {Phase.SENDING, Phase.READY})
        waiting = [lane for lane in lanes.values() if lane.phase is Phase.READY]
        releasing = asyncio.create_task(dispatcher._lease_release.release(waiting))
        await asyncio.sleep(0)
        assert [lane.phase for lane in waiting] == [Phase.GONE]
        await releasing


async def test_an_event_does_not_wait_for_a_lease_whose_release_the_log_refused(
    log: MemoryLog,
    clock: HandClock,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "RING_SECONDS", 0)
    lanes = RefusesOneRelease(log)
    async with dispatching(log, endpoint(receiver.url), lanes=lanes, linger_ms=1000) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await until(lambda: row(log).cursor == 1)
        clock.at += 1000
        await until(lambda: lanes.calls["release"] == 1)
        log.append(1, a_record(2))
        await receiver.wait(2)  # the clock stands still: no lease ends
        assert "the log cannot be used, tried again each second: the disk is full" in caplog.text
        sweeps = lanes.calls["endpoint_states"]
        await until(lambda: lanes.calls["endpoint_states"] > sweeps + 1)
        assert dispatcher.metrics.rings_lost.value() == 0


async def test_where_a_lane_is_comes_to_the_log_though_it_refused_that_with_the_release(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    lanes = RefusesOneRelease(log)
    async with dispatching(log, endpoint(receiver.url, events=["speech.*"]), lanes=lanes, linger_ms=1000):
        log.append(log.open(), a_record(1), a_record(2, "vad.speech_started"))
        await until(lambda: row(log).cursor == 1)
        clock.at += 1000
        await until(lambda: (row(log).cursor, row(log).owner, row(log).next_at) == (2, None, None))


async def test_a_lane_is_released_only_once_the_log_knows_where_it_is(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    lanes = RefusesOneRelease(log)
    lanes.calls["release"] = 1  # only where the lane is
    async with dispatching(log, endpoint(receiver.url, events=["speech.*"]), lanes=lanes, linger_ms=1000):
        log.append(log.open(), a_record(1), a_record(2, "vad.speech_started"))
        await until(lambda: row(log).cursor == 1)
        clock.at += 1000
        await until(lambda: row(log).owner is None)
        assert row(log).cursor == 2


class RefusesReleases(MemoryLanes):
    """The log cannot be written where lanes are to be released."""

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        raise OutboxError("another process holds it")


async def test_leases_are_renewed_though_the_log_refuses_to_release_others(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    receiver.answer = lambda request: Answer(after=3600 if "evt_2_" in request.headers["webhook-id"] else 0)
    lanes = RefusesReleases(log)
    async with dispatching(log, endpoint(receiver.url, timeout="10m"), lanes=lanes, grace=0) as (dispatcher, _):
        for stream in (log.open(), log.open()):
            log.append(stream, a_record(1, stream=str(stream)))
        await until(lambda: log.rows[0].cursor == 1)
        await receiver.wait(2)
        clock.at += dispatcher._state.lease_ms // 2 + 1
        until_ms = log.rows[1].next_at
        await until(lambda: log.rows[1].next_at != until_ms)


async def test_nothing_is_claimed_while_lanes_are_being_released(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    lanes = SlowToRelease(log)
    async with dispatching(log, endpoint(receiver.url), lanes=lanes, linger_ms=1000):
        log.append(log.open(), a_record(1))
        await until(lambda: row(log).cursor == 1)
        clock.at += 1000
        await lanes.asked.wait()
        before = lanes.calls["claim"]
        log.append(1, a_record(2))
        for _ in range(50):  # a claim would take fewer turns of the loop
            await asyncio.sleep(0)
        assert lanes.calls["claim"] == before, "it would not see the lane that is due once it is released"
        lanes.go_on.set()
        await receiver.wait(2)


async def test_what_is_being_released_at_a_stop_is_released_before_its_end(
    log: MemoryLog, clock: HandClock, receiver: Receiver
) -> None:
    lanes = SlowToRelease(log)
    async with dispatching(log, endpoint(receiver.url), lanes=lanes, linger_ms=1000) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await until(lambda: row(log).cursor == 1)
        clock.at += 1000
        await lanes.asked.wait()
        stopping = asyncio.create_task(dispatcher.stop(0))
        await until(lambda: dispatcher._group is None)
        for _ in range(50):  # an end that waits for nothing would take fewer turns of the loop
            await asyncio.sleep(0)
        assert not stopping.done()
        lanes.go_on.set()
        await stopping
        assert row(log).owner is None


async def test_a_lane_is_given_back_whose_endpoint_was_removed_while_it_was_claimed(
    log: MemoryLog, receiver: Receiver
) -> None:
    claimed, go_on = asyncio.Event(), asyncio.Event()

    class SlowToClaim(MemoryLanes):
        async def claim(self, *wants: Any, **how: Any) -> list[Lane]:
            if lanes := await super().claim(*wants, **how):
                claimed.set()
                await go_on.wait()
            return lanes

    async with dispatching(log, endpoint(receiver.url), lanes=SlowToClaim(log)) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await claimed.wait()
        await dispatcher.reload([])
        go_on.set()
        await until(lambda: row(log).owner is None)
