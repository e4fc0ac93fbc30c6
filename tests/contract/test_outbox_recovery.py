"""An endpoint recovers: what waits for it is due at once, and what somebody holds, or asked for, is left alone."""

from typing import Any

import pytest
import sqlalchemy as sa

from relay.errors import Fenced
from relay.outbox import schema
from relay.outbox.log import recovery
from relay.outbox.outbox import Outbox
from relay.outbox.records import ParkedSettlement, Parking, Settlement
from tests.support.builders import EPOCH_MS, new_stream, run
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, one_stream, rows, the_lane

HOUR = 3_600_000


async def park_and_retry(outbox: Outbox, *, outage: bool, failed_at: int | None = EPOCH_MS) -> None:
    """The first event is parked, the second was delivered, the third is to be tried again in an hour."""
    lane = await the_lane(outbox.lanes)
    aside = Parking(1, 5, "status 500", 0, EPOCH_MS + HOUR, failed_at, outage)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, parked=aside))
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 2, 2, 0))
    retry = Settlement(lane.id, lane.fence, 2, 2, 4, EPOCH_MS + HOUR, (), None, None, EPOCH_MS, failed_at, outage)
    await outbox.lanes.settle(retry)


async def due(outbox: Outbox) -> tuple[list[int], list[int]]:
    """The attempts of what can be claimed now: parked events, and lanes."""
    aside = await outbox.lanes.claim_parked({"crm": 9}, lease_ms=LEASE_MS)
    return [one.attempts for one in aside], [lane.attempts for lane in await claim(outbox.lanes, "crm")]


async def test_what_an_outage_has_failed_is_due_and_uses_up_no_step_of_its_schedule(store: Store) -> None:
    outbox = await one_stream(store)
    await park_and_retry(outbox, outage=True)
    store.clock.at += 10
    assert await due(outbox) == ([], [])
    assert await outbox.lanes.recover("other", since=0) == 0
    assert await outbox.lanes.recover("crm", since=None) == 2
    assert await due(outbox) == ([4], [3])


@pytest.mark.parametrize(("since", "expected"), [(None, 0), (EPOCH_MS + 1, 0), (EPOCH_MS, 2)])
async def test_what_failed_by_itself_is_due_only_where_the_outage_had_begun(
    store: Store, since: int | None, expected: int
) -> None:
    outbox = await one_stream(store)
    await park_and_retry(outbox, outage=False)
    assert await outbox.lanes.recover("crm", since=since) == expected


async def test_a_wait_that_the_endpoint_asked_for_is_not_cut_short(store: Store) -> None:
    outbox = await one_stream(store)
    await park_and_retry(outbox, outage=False, failed_at=None)
    assert await outbox.lanes.recover("crm", since=0) == 0


async def test_what_a_dispatcher_holds_is_left_alone(store: Store) -> None:
    outbox = await one_stream(store)
    await park_and_retry(outbox, outage=True)
    store.clock.at += HOUR
    assert await due(outbox) == ([5], [4])
    before = await rows(outbox, schema.lanes), await rows(outbox, schema.parked)
    assert await (await store.open("second")).lanes.recover("crm", since=0) == 0
    assert (await rows(outbox, schema.lanes), await rows(outbox, schema.parked)) == before


async def test_what_is_due_by_a_recovery_is_claimed_in_the_order_in_which_it_began_to_fail(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "STEP", 2)
    outbox = await one_stream(store)
    for number in range(2, 8):
        await (await outbox.open_stream(new_stream(number))).append(run(number, 1, 1))
    lanes = await outbox.lanes.claim({"crm": 9}, lease_ms=LEASE_MS)
    for age, lane in enumerate(reversed(lanes)):
        began, retry_at = EPOCH_MS - 1000 + age, EPOCH_MS + HOUR - age
        await outbox.lanes.settle(
            Settlement(lane.id, lane.fence, 0, 0, 1, retry_at, failing_since=began, failed_at=began, outage=True)
        )
    assert await outbox.lanes.recover("crm", since=None) == 7
    again = await outbox.lanes.claim({"crm": 9}, lease_ms=LEASE_MS)
    assert [lane.id for lane in again] == [lane.id for lane in reversed(lanes)]
    assert {lane.attempts for lane in again} == {1}, "without a failed attempt it would not be known since when"


async def test_a_row_of_parked_events_goes_back_to_the_head_of_its_lane(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    for head in (1, 2):
        aside = Parking(head, 5, "connect", head - 1, EPOCH_MS + HOUR, EPOCH_MS, outage=True)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, head, head, 0, parked=aside))
    await outbox.lanes.release([(lane.id, lane.fence)])
    assert await outbox.lanes.recover("crm", since=None) == 2
    again = await the_lane(outbox.lanes)
    assert (again.cursor, again.last_sent, again.attempts) == (0, 0, 4)
    assert await rows(outbox, schema.parked) == []


async def test_what_goes_back_is_the_last_event_sent_of_its_lane_and_no_other(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "bi"])
    for number in (1, 2):
        await (await outbox.open_stream(new_stream(number))).append(run(number, 1, 3))
    of_bi, *_ = held = await claim(outbox.lanes, "bi", most=1) + await claim(outbox.lanes, "crm")
    for lane in held:
        aside = Parking(1, 1, "connect", 0, EPOCH_MS + HOUR, EPOCH_MS, outage=True)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, parked=aside))
    one, two = sorted(held[1:], key=lambda lane: lane.stream)
    for lane in (one, two):
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, 2, 2, 0))
    for lane in (one, two):
        aside = Parking(3, 5, "status 500", 2, EPOCH_MS + HOUR, EPOCH_MS, outage=lane is one)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, 3, 3, 0, parked=aside))
    await outbox.lanes.release([(lane.id, lane.fence) for lane in held])
    store.clock.at += 10
    assert await outbox.lanes.recover("crm", since=EPOCH_MS + 1) == 3
    waiting = [(row[0], row[1], row[3], row[7]) for row in await rows(outbox, schema.parked)]
    due_now = [(lane.id, 1, 0, EPOCH_MS) for lane in (one, two)]
    assert waiting == sorted([*due_now, (of_bi.id, 1, 1, EPOCH_MS + HOUR), (two.id, 3, 5, EPOCH_MS + HOUR)])
    assert {row[0]: row[6] for row in await rows(outbox, schema.lanes)}[one.id] == EPOCH_MS, "since it failed"
    again = {lane.id: lane for lane in await claim(outbox.lanes, "crm")}
    back = again[one.id]
    assert (back.cursor, back.last_sent, back.attempts, back.failing_since) == (2, 2, 4, EPOCH_MS)
    assert two.id not in again


async def test_an_event_that_goes_back_as_the_next_one_fails_waits_with_it(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    aside = Parking(1, 5, "status 500", 0, EPOCH_MS + HOUR, EPOCH_MS, outage=True)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, parked=aside))
    retry = Settlement(lane.id, lane.fence, 1, 1, 1, EPOCH_MS + 30_000, (), None, None, EPOCH_MS, EPOCH_MS, True)
    await outbox.lanes.settle(retry)
    assert await rows(outbox, schema.parked) == []
    assert await claim(outbox.lanes) == []
    store.clock.at += 30_000
    lane = await the_lane(outbox.lanes)
    assert (lane.cursor, lane.attempts) == (0, 5)


async def test_a_parked_event_that_is_being_sent_stays_where_it_is(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    aside = Parking(1, 5, "connect", 0, EPOCH_MS, EPOCH_MS, outage=True)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, parked=aside))
    await outbox.lanes.release([(lane.id, lane.fence)])
    (held,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
    assert await outbox.lanes.recover("crm", since=None) == 0
    await outbox.lanes.settle_parked(ParkedSettlement(held.lane, 1, held.fence, 5))


async def test_a_parked_claim_does_not_fit_the_event_after_it_was_back_in_its_lane(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    aside = Parking(1, 5, "connect", 0, EPOCH_MS, EPOCH_MS, outage=True)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, parked=aside))
    await outbox.lanes.release([(lane.id, lane.fence)])
    for _ in range(2):
        (stale,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
        await outbox.lanes.reclaim()
    assert await outbox.lanes.recover("crm", since=None) == 1
    second = await store.open("second")
    lane = await the_lane(second.lanes)
    await second.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, parked=aside))
    assert len(await second.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)) == 1
    with pytest.raises(Fenced):
        await outbox.lanes.settle_parked(ParkedSettlement(stale.lane, 1, stale.fence, 5))


@pytest.mark.parametrize("either_store", ["sqlite"], indirect=True)
async def test_recovering_does_not_look_through_the_lanes_that_wait_for_their_turn(store: Store) -> None:
    outbox = await one_stream(store)

    def plan(connection: sa.Connection) -> str:
        statements: list[tuple[str, Any]] = []
        sa.event.listen(
            connection.engine, "before_cursor_execute", lambda _c, _k, sql, par, _x, _m: statements.append((sql, par))
        )
        recovery.hasten(connection, schema.lanes, "crm", EPOCH_MS, since=None, every=False)
        (sql, parameters), *_ = statements
        return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).all())

    assert "lanes_due (endpoint=? AND next_at>?)" in await outbox._commit.call(plan)
