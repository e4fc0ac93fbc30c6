"""What a dispatcher may rely on: leases, fences, one schedule, nothing lost when it comes or goes."""

import asyncio
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Fenced, OutboxError
from relay.outbox import schema
from relay.outbox.records import Attempt, DeadLetter, Lane, Settlement, StreamShare, record
from tests.support.builders import EPOCH_MS, durable, ended, interim, new_stream, process, run
from tests.support.outbox.outbox_store import (
    LEASE_MS,
    Store,
    claim,
    one_stream,
    parking,
    rows,
    settled,
    sqlite,
    the_lane,
)


async def test_a_claimed_lane_tells_all_that_sending_needs(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    until = EPOCH_MS + LEASE_MS
    assert lane == Lane(
        id=lane.id,
        endpoint="crm",
        stream=lane.stream,
        cursor=0,
        last_sent=0,
        attempts=0,
        fence=EPOCH_MS + 1,
        lease_until=until,
        room="room",
        participant="alice",
    )
    assert await claim(outbox.lanes) == []
    read = await outbox.lanes.read(lane.stream, 0, 10)
    assert read == [record(event) for event in run(1, 1, 3)]


async def test_reads_that_meet_in_one_statement_each_get_their_own(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in (1, 2):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, 20))
    first, second = await claim(outbox.lanes)
    asked = [(first.stream, 0, 5), (second.stream, 3, 2), (first.stream, 2, 100), (first.stream, 20, 9), (99, 0, 9)]
    answers = await asyncio.gather(*(outbox.lanes.read(*one) for one in asked))
    found = [[one.sequence for one in answer] for answer in answers]
    assert found == [[1, 2, 3, 4, 5], [4, 5], list(range(3, 21)), [], []]


async def test_a_new_endpoint_starts_from_now_on_open_streams_only(store: Store) -> None:
    outbox = await one_stream(store, "crm")
    closed = await outbox.open_stream(new_stream(2))
    await closed.append([ended(2, 1)])
    await outbox.lanes.sync_endpoints(["crm", "late"])
    assert await claim(outbox.lanes, "late") == []
    log = await outbox.open_stream(new_stream(3))
    await log.append(run(3, 1, 1))
    assert [lane.cursor for lane in await claim(outbox.lanes, "late")] == [0]
    assert len(await claim(outbox.lanes, "crm")) == 3


async def test_a_new_endpoint_gets_what_follows_on_a_stream_that_was_open_before_it(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    await outbox.lanes.sync_endpoints(["late"])
    await log.append([durable(1, 4)])
    assert [lane.cursor for lane in await claim(outbox.lanes, "late")] == [3]


async def test_a_removed_endpoint_is_not_claimed_and_goes_on_where_it_stopped(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 2))
    await outbox.lanes.sync_endpoints(["other"])
    await outbox.lanes.release([(lane.id, lane.fence)])
    assert await claim(outbox.lanes) == []
    await outbox.lanes.sync_endpoints(["crm"])
    again = await the_lane(outbox.lanes)
    assert (again.id, again.cursor, again.last_sent) == (lane.id, 2, 2)


async def test_an_endpoint_stays_configured_while_another_dispatcher_has_it(store: Store) -> None:
    one, two = [await store.open(name) for name in ("one", "two")]
    now = store.clock.now_ms()

    async def configured() -> set[str]:
        return {name for name, state in (await one.lanes.endpoint_states()).items() if state.active}

    await one.lanes.sync_endpoints(["crm"])
    await one.note_process(process("one", "dispatch", seen_at=now, endpoints=("crm",)))
    await two.note_process(process("two", "dispatch", seen_at=now, endpoints=()))
    await two.lanes.sync_endpoints(["bi"])
    assert await configured() == {"bi", "crm"}, "each sends to its own"
    await one.lanes.sync_endpoints(["bi"])
    assert await configured() == {"bi"}, "the last that had it has given it up"
    await two.note_process(process("two", "dispatch", seen_at=now, stopped_at=now, endpoints=("bi",)))
    await one.lanes.sync_endpoints(["crm"])
    assert await configured() == {"crm"}, "one that stopped has no say"


async def test_the_lanes_longest_due_are_claimed_first(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in (1, 2, 3, 4):
        log = await outbox.open_stream(new_stream(number))
        store.clock.at += (0, 40, 10, 30, 20)[number]
        await log.append([durable(number, 1)])
        store.clock.at = EPOCH_MS
    store.clock.at += 100
    streams = [lane.stream for lane in await claim(outbox.lanes, most=3)]
    assert streams == [2, 4, 3]
    assert [lane.stream for lane in await claim(outbox.lanes, most=3)] == [1]


async def test_more_lanes_than_a_transaction_takes_are_claimed_by_several(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a", "b"])
    logs = await asyncio.gather(*(outbox.open_stream(new_stream(number)) for number in range(1, 301)))
    await asyncio.gather(*(log.append([durable(number, 1)]) for number, log in enumerate(logs, 1)))
    got = await outbox.lanes.claim({"a": 290, "b": 1000}, lease_ms=LEASE_MS)
    assert len({lane.id for lane in got}) == len(got)
    assert [sum(lane.endpoint == name for lane in got) for name in ("a", "b")] == [290, 300]


async def test_what_was_claimed_before_the_log_broke_is_returned_and_then_the_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in (1, 2, 3):
        await (await outbox.open_stream(new_stream(number))).append([durable(number, 1)])
    database = outbox.lanes._database
    claims = iter([database.claim])

    def claim_once(*args: Any, **wants: Any) -> list[Lane]:
        for once in claims:
            return once(*args, **wants)
        raise OutboxError("the disk is full")

    monkeypatch.setattr("relay.outbox.log.lanes._MOST_CLAIMED", 2)
    monkeypatch.setattr(database, "claim", claim_once)
    assert [lane.stream for lane in await outbox.lanes.claim({"crm": 3}, lease_ms=LEASE_MS)] == [1, 2]
    with pytest.raises(OutboxError, match="the disk is full"):
        await outbox.lanes.claim({"crm": 3}, lease_ms=LEASE_MS)


async def test_two_dispatchers_never_hold_the_same_lane(store: Store) -> None:
    first = await one_stream(store, "a", "b", "c")
    second = await store.open("second")
    both = await asyncio.gather(claim(first.lanes, "a", "b", "c"), claim(second.lanes, "a", "b", "c"))
    held = [lane.id for lanes in both for lane in lanes]
    assert len(held) == len(set(held)) == 3


async def test_a_settle_moves_the_cursor_and_keeps_the_lane(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, cursor=2, last_sent=1, attempts=0))
    assert await claim(outbox.lanes) == []
    store.clock.at += LEASE_MS
    again = await the_lane(outbox.lanes)
    assert (again.cursor, again.last_sent) == (2, 1)
    assert again.fence > lane.fence


@pytest.mark.parametrize("dead", [None, DeadLetter(1, 1, "given up", 0)], ids=["goes on", "dead"])
async def test_a_settle_is_refused_once_the_lane_was_claimed_by_another(store: Store, dead: DeadLetter | None) -> None:
    first = await one_stream(store, "crm", "other")
    second = await store.open("second")
    lane, kept = await the_lane(first.lanes), await the_lane(first.lanes, "other")
    store.clock.at += LEASE_MS
    (now_its,) = await claim(second.lanes)
    attempt = Attempt(lane.id, 1, 1, store.clock.at, "ok", 200, 12.5)
    late = Settlement(lane.id, lane.fence, 1, 1, 0, tries=(attempt,), dead=dead)
    outcomes = await asyncio.gather(
        first.lanes.settle(late), first.lanes.settle(settled(kept, 1)), return_exceptions=True
    )
    assert isinstance(outcomes[0], Fenced)
    assert outcomes[1] is None
    await second.lanes.settle(settled(now_its, 3))
    assert await rows(first, schema.attempts) == [(1, lane.id, 1, 1, store.clock.at, "ok", 200, 12.5)]
    assert await rows(first, schema.dead_letters) == []


async def test_a_settle_is_refused_once_the_lane_was_let_go(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.release([(lane.id, lane.fence)])
    with pytest.raises(Fenced):
        await outbox.lanes.settle(settled(lane, 3))
    assert (await the_lane(outbox.lanes)).cursor == 0


async def test_many_settles_of_one_lane_at_once_end_where_the_last_one_says(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await asyncio.gather(*(outbox.lanes.settle(settled(lane, cursor)) for cursor in (1, 2, 3)))
    store.clock.at += LEASE_MS
    assert (await the_lane(outbox.lanes)).cursor == 3


async def test_a_settle_behind_one_that_let_the_lane_go_is_refused(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    retry = Settlement(lane.id, lane.fence, 0, 0, 1, next_at=EPOCH_MS + 5)
    outcomes = await asyncio.gather(
        outbox.lanes.settle(retry), outbox.lanes.settle(settled(lane, 1)), return_exceptions=True
    )
    assert outcomes[0] is None
    assert isinstance(outcomes[1], Fenced)


async def test_a_retry_time_and_its_attempts_outlive_the_process(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    attempt = Attempt(lane.id, 1, 1, EPOCH_MS, "connect", None, 3.25)
    retry = Settlement(lane.id, lane.fence, 0, 0, 1, next_at=EPOCH_MS + 30_000, tries=(attempt,))
    await outbox.lanes.settle(retry)
    await outbox.aclose()

    again = await store.open()
    await again.lanes.reclaim()
    store.clock.at += 29_999
    assert await claim(again.lanes) == []
    store.clock.at += 1
    assert (await the_lane(again.lanes)).attempts == 1
    assert await rows(again, schema.attempts) == [(1, lane.id, 1, 1, EPOCH_MS, "connect", None, 3.25)]


async def test_since_when_a_head_fails_is_known_until_it_is_settled(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    failing = Settlement(lane.id, lane.fence, 0, 0, 1, next_at=EPOCH_MS, failing_since=EPOCH_MS - 7)
    await outbox.lanes.settle(failing)
    lane = await the_lane(outbox.lanes)
    assert (lane.attempts, lane.failing_since) == (1, EPOCH_MS - 7)
    await outbox.lanes.settle(settled(lane, 1))
    await outbox.lanes.release([(lane.id, lane.fence)])
    assert (await the_lane(outbox.lanes)).failing_since is None


@pytest.mark.parametrize("together", [1, 3])
async def test_an_append_does_not_cut_a_retry_time_or_a_lease_short(store: Store, together: int) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "held"])
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1)])
    lane, _ = await the_lane(outbox.lanes), await the_lane(outbox.lanes, "held")
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 0, 0, 1, next_at=EPOCH_MS + 30_000))
    await log.append(run(1, 2, 1 + together))
    assert await claim(outbox.lanes, "crm", "held") == []


async def test_a_dead_letter_is_kept(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    dead = DeadLetter(sequence=1, attempts=12, reason="status 500", previous=0)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 0, 0, dead=dead))
    assert await rows(outbox, schema.dead_letters) == [(lane.id, 1, 12, "status 500", EPOCH_MS, 0)]


@pytest.mark.parametrize("together", [1, 3])
async def test_a_released_lane_is_due_if_the_stream_has_more_else_idle_until_an_append(
    store: Store, together: int
) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 2))
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 1))
    await outbox.lanes.release([(lane.id, lane.fence)])
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 2))
    await outbox.lanes.release([(lane.id, lane.fence)])
    store.clock.at += 10 * LEASE_MS
    assert await claim(outbox.lanes) == []
    await log.append(run(1, 3, 2 + together))
    assert (await the_lane(outbox.lanes)).cursor == 2


async def test_a_lane_that_was_lost_is_neither_renewed_nor_released(store: Store) -> None:
    first = await one_stream(store)
    second = await store.open("second")
    lost = await the_lane(first.lanes)
    store.clock.at += LEASE_MS
    held = await the_lane(second.lanes)
    await first.lanes.release([(lost.id, lost.fence)])
    assert not await first.lanes.renew([(lost.id, lost.fence)], lease_ms=0)
    assert await claim(first.lanes) == []
    await second.lanes.settle(settled(held, 1))


async def test_a_renewal_that_comes_after_the_release_keeps_the_lane_from_nobody(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.release([(lane.id, lane.fence)])
    await outbox.lanes.renew([(lane.id, lane.fence)], lease_ms=LEASE_MS)
    assert len(await claim(outbox.lanes)) == 1


async def test_a_release_that_is_repeated_does_not_cut_a_retry_time_short(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 0, 0, 1, next_at=EPOCH_MS + 30_000))
    await outbox.lanes.release([(lane.id, lane.fence)])
    assert await claim(outbox.lanes) == []


async def test_a_renewed_lease_lasts_longer(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    store.clock.at += LEASE_MS - 1
    assert await outbox.lanes.renew([(lane.id, lane.fence)], lease_ms=LEASE_MS) == {lane.id}
    store.clock.at += LEASE_MS - 1
    assert await claim(outbox.lanes) == []
    store.clock.at += 1
    assert len(await claim(outbox.lanes)) == 1


async def test_a_restarted_dispatcher_takes_back_its_own_lanes_and_no_others(store: Store) -> None:
    former = await one_stream(store, "mine", "others")
    second = await store.open("second")
    lane, _ = await the_lane(former.lanes, "mine"), await the_lane(second.lanes, "others")
    restarted = await store.open()
    await restarted.lanes.reclaim()
    with pytest.raises(Fenced):  # the former process is still there
        await former.lanes.settle(settled(lane, 1))
    assert [one.endpoint for one in await claim(restarted.lanes, "mine", "others")] == ["mine"]


async def test_the_newest_sequences_of_streams(store: Store) -> None:
    outbox = await one_stream(store, events=7)
    log = await outbox.open_stream(new_stream(2))
    await log.append(run(2, 1, 2))
    assert await outbox.lanes.last_sequences([1, 2, 99]) == {1: 7, 2: 2}
    assert await outbox.lanes.last_sequences([]) == {}


async def test_what_is_unsettled_is_counted_for_each_active_endpoint(store: Store) -> None:
    outbox = await one_stream(store, "crm", "idle", "gone", events=7)
    log = await outbox.open_stream(new_stream(2))
    await log.append([*run(2, 1, 2), ended(2, 3)])
    first, _ = await claim(outbox.lanes)
    await outbox.lanes.settle(settled(first, 4))
    await outbox.lanes.settle(parking(replace(first, cursor=4)))
    await outbox.lanes.sync_endpoints(["crm", "idle", "late"])  # the last one's first stream begins behind its events
    idle = 10 + 1  # the relay's own stream reports the parked one to the others
    assert await outbox.lanes.unsettled() == {"crm": 10 - 4, "idle": idle, "late": 0}


async def test_of_a_name_that_is_to_be_the_only_one_there_is_one(store: Store) -> None:
    first = await store.open("relay", sole=True)
    with pytest.raises(OutboxError, match="another relay has it: stop that one"):
        await store.open("relay", sole=True)
    await store.open("another", sole=True)
    await first.aclose()
    await store.open("relay", sole=True)


async def test_what_separates_bodies_in_a_read_may_be_said(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    said = interim(1, 1, revision=1, text="one\x1etwo\nthree\0")
    await log.append([said, durable(1, 2)])
    lane = await the_lane(outbox.lanes)
    assert await outbox.lanes.read(lane.stream, 0, 10) == [record(said), record(durable(1, 2))]


async def test_what_most_transactions_do_is_one_statement(tmp_path: Path) -> None:
    """Each one more has to get the interpreter lock back while every other writer waits."""
    async with sqlite(tmp_path) as store:
        outbox = await one_stream(store)
        log, lane = await outbox.open_stream(new_stream(2)), await the_lane(outbox.lanes)
        statements: list[str] = []
        traced = outbox._commit._connection.connection.driver_connection
        assert traced is not None
        traced.set_trace_callback(statements.append)
        await log.append(run(2, 1, 3))
        await outbox.lanes.settle(settled(lane, 1))
        traced.set_trace_callback(None)
        named = [one.split("(")[0].strip() for one in statements]
        # a statement is told again for each statement of its trigger
        assert [name for name, _ in groupby(named)] == ["INSERT INTO appended VALUES", "INSERT INTO settled VALUES"]


async def test_a_share_of_the_streams_is_claimed_and_the_rest_once_it_is_overdue(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in range(1, 5):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, 1))
    half = {"crm": StreamShare(1, 2)}
    mine = await outbox.lanes.claim({"crm": 10}, lease_ms=LEASE_MS, shares=half)
    assert {lane.stream % 2 for lane in mine} == {1}
    assert len(mine) == 2
    store.clock.at += 2_000
    others = await outbox.lanes.claim({"crm": 10}, lease_ms=LEASE_MS, shares=half)
    assert {lane.stream % 2 for lane in others} == {0}


async def test_parked_events_and_resends_are_shared_by_their_streams(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in (1, 2):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, 1))
    for lane in await claim(outbox.lanes):
        await outbox.lanes.settle(parking(lane, retry_at=store.clock.at))
    (first,) = await outbox.lanes.claim_parked({"crm": 10}, lease_ms=LEASE_MS, shares={"crm": StreamShare(1, 2)})
    assert first.stream % 2 == 1
    (second,) = await outbox.lanes.claim_parked({"crm": 10}, lease_ms=LEASE_MS, shares={"crm": StreamShare(0, 2)})
    assert second.stream % 2 == 0


async def test_what_an_ended_dispatcher_held_is_due_at_once_and_nothing_else(store: Store) -> None:
    ended, working, third = await store.open("ended"), await store.open("working"), await store.open("third")
    await ended.lanes.sync_endpoints(["crm"])
    for number in (1, 2):
        log = await ended.open_stream(new_stream(number))
        await log.append(run(number, 1, 1))
    (lane,) = await ended.lanes.claim({"crm": 1}, lease_ms=LEASE_MS)
    (kept,) = await working.lanes.claim({"crm": 1}, lease_ms=LEASE_MS)
    await third.lanes.free(["ended"])
    assert [(one.id, one.fence) for one in await claim(third.lanes)] == [(lane.id, lane.fence + 1)]
    with pytest.raises(Fenced):
        await ended.lanes.settle(settled(lane, 1))
    await working.lanes.settle(settled(kept, 1))
