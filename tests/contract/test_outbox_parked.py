"""Events that have left their lane's order: leased, retried and given up by themselves."""

import asyncio

import pytest
import sqlalchemy as sa

from relay.errors import Fenced
from relay.outbox import schema
from relay.outbox.outbox import Outbox
from relay.outbox.records import Attempt, DeadLetter, ParkedEvent, ParkedSettlement, record
from tests.support.builders import EPOCH_MS, durable, new_stream, run
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, one_stream, parking, rows, settled, the_lane

RETRY_AT = EPOCH_MS + 300_000


async def parked(store: Store, *endpoints: str) -> Outbox:
    """An outbox with one stream, whose first event is parked for the first endpoint, and due."""
    outbox = await one_stream(store, *endpoints)
    await outbox.lanes.settle(parking(await the_lane(outbox.lanes, endpoints[0] if endpoints else "crm")))
    store.clock.at = RETRY_AT
    return outbox


async def claim_parked(outbox: Outbox, *endpoints: str, most: int = 10) -> list[ParkedEvent]:
    return await outbox.lanes.claim_parked(dict.fromkeys(endpoints or ("crm",), most), lease_ms=LEASE_MS)


async def the_parked(outbox: Outbox) -> ParkedEvent:
    (event,) = await claim_parked(outbox)
    return event


def done(event: ParkedEvent, *, tries: tuple[Attempt, ...] = ()) -> ParkedSettlement:
    return ParkedSettlement(event.lane, event.record.sequence, event.fence, event.attempts, tries=tries)


def again(event: ParkedEvent, retry_at: int) -> ParkedSettlement:
    attempts = event.attempts + 1
    return ParkedSettlement(event.lane, event.record.sequence, event.fence, attempts, retry_at, reason="timeout")


async def test_a_parked_head_is_tried_again_aside_while_its_lane_goes_on(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 1))
    await outbox.lanes.release([(lane.id, lane.fence)])
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(parking(lane))
    await outbox.lanes.settle(settled(lane, 3))
    store.clock.at = RETRY_AT - 1
    assert await claim_parked(outbox) == []
    store.clock.at = RETRY_AT
    assert await claim_parked(outbox) == [
        ParkedEvent(
            lane=lane.id,
            endpoint="crm",
            stream=lane.stream,
            record=record(durable(1, 2)),
            attempts=3,
            previous=1,
            fence=lane.fence + 1,  # behind that of the lane
            lease_until=RETRY_AT + LEASE_MS,
            room="room",
            participant="alice",
        )
    ]
    assert await claim_parked(outbox) == [], "it is leased"


async def test_nothing_is_parked_by_a_settle_that_is_refused(store: Store) -> None:
    first = await one_stream(store)
    second = await store.open("second")
    lost = await the_lane(first.lanes)
    store.clock.at += LEASE_MS
    await the_lane(second.lanes)
    with pytest.raises(Fenced):
        await first.lanes.settle(parking(lost))
    assert await rows(first, schema.parked) == []


async def test_a_parked_event_that_was_delivered_is_done_with_and_its_lane_is_left_alone(store: Store) -> None:
    outbox = await parked(store)
    event = await the_parked(outbox)
    attempt = Attempt(event.lane, 1, 4, RETRY_AT, "ok", 200, 1.5)
    (before,) = await rows(outbox, schema.lanes)
    await outbox.lanes.settle_parked(done(event, tries=(attempt,)))
    assert await rows(outbox, schema.parked) == []
    assert await rows(outbox, schema.attempts) == [(1, event.lane, 1, 4, RETRY_AT, "ok", 200, 1.5)]
    (after,) = await rows(outbox, schema.lanes)
    settled_at = list(schema.lanes.c).index(schema.lanes.c.settled_at)
    assert after[settled_at] == RETRY_AT, "from here on it is kept for the retention"
    assert [after[n] for n in range(len(after)) if n != settled_at] == [
        before[n] for n in range(len(before)) if n != settled_at
    ]


async def test_a_parked_event_and_its_next_attempt_outlive_the_process(store: Store) -> None:
    outbox = await parked(store)
    await outbox.lanes.settle_parked(again(await the_parked(outbox), RETRY_AT + 1000))
    await outbox.aclose()

    restarted = await store.open()
    await restarted.lanes.reclaim()
    store.clock.at = RETRY_AT + 999
    assert await claim_parked(restarted) == []
    store.clock.at += 1
    event = await the_parked(restarted)
    assert (event.attempts, event.fence) == (4, EPOCH_MS + 3)
    reason = sa.select(schema.parked.c.reason)
    assert await restarted._reader.query(lambda connection: connection.execute(reason).scalar()) == "timeout"


async def test_a_parked_event_that_is_given_up_is_kept_with_the_dead(store: Store) -> None:
    outbox = await parked(store)
    event = await the_parked(outbox)
    dead = DeadLetter(1, 12, "status 404", previous=event.previous)
    await outbox.lanes.settle_parked(ParkedSettlement(event.lane, 1, event.fence, 12, dead=dead))
    assert await rows(outbox, schema.parked) == []
    assert await rows(outbox, schema.dead_letters) == [(event.lane, 1, 12, "status 404", RETRY_AT, 0)]


async def test_a_settle_of_anothers_parked_event_is_refused_but_its_attempt_recorded(store: Store) -> None:
    first = await parked(store)
    second = await store.open("second")
    lost = await the_parked(first)
    store.clock.at += LEASE_MS
    held = await the_parked(second)
    attempt = Attempt(lost.lane, 1, 4, RETRY_AT, "ok", 200, 1.5)
    dead = DeadLetter(1, 4, "status 500", 0)
    for late in (
        done(lost, tries=(attempt,)),
        again(lost, RETRY_AT),
        ParkedSettlement(lost.lane, 1, lost.fence, 4, dead=dead),
    ):
        with pytest.raises(Fenced):
            await first.lanes.settle_parked(late)
    assert await rows(first, schema.attempts) == [(1, lost.lane, 1, 4, RETRY_AT, "ok", 200, 1.5)]
    assert await rows(first, schema.dead_letters) == []
    await second.lanes.settle_parked(done(held))


async def test_a_parked_event_is_settled_once_per_claim(store: Store) -> None:
    outbox = await parked(store)
    event = await the_parked(outbox)
    await outbox.lanes.settle_parked(again(event, RETRY_AT + 1))
    with pytest.raises(Fenced):
        await outbox.lanes.settle_parked(done(event))
    store.clock.at += 1
    event = await the_parked(outbox)
    await outbox.lanes.settle_parked(done(event))
    with pytest.raises(Fenced):
        await outbox.lanes.settle_parked(done(event))


async def test_a_refused_settle_of_a_parked_event_fails_nobody_elses_in_its_transaction(store: Store) -> None:
    outbox = await parked(store)
    event, log = await the_parked(outbox), await outbox.open_stream(new_stream(2))
    await outbox.lanes.settle_parked(done(event))
    append = asyncio.ensure_future(log.append(run(2, 1, 2)))
    with pytest.raises(Fenced):
        await outbox.lanes.settle_parked(done(event))
    await append


async def test_a_restarted_dispatcher_takes_back_its_own_parked_events_and_no_others(store: Store) -> None:
    first = await one_stream(store, "mine", "others")
    second = await store.open("second")
    for lane in await claim(first.lanes, "mine", "others"):
        await first.lanes.settle(parking(lane))
    store.clock.at = RETRY_AT
    (held,) = await claim_parked(first, "mine")
    await claim_parked(second, "others")
    restarted = await store.open()
    await restarted.lanes.reclaim()
    with pytest.raises(Fenced):  # the former process is still there
        await first.lanes.settle_parked(done(held))
    assert [event.endpoint for event in await claim_parked(restarted, "mine", "others")] == ["mine"]


async def test_the_parked_events_longest_due_are_claimed_first(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number, wait in ((1, 30), (2, 10), (3, 20), (4, 40)):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, 1))
        await outbox.lanes.settle(parking(await the_lane(outbox.lanes), retry_at=EPOCH_MS + wait))
    store.clock.at += 30
    assert [event.stream for event in await claim_parked(outbox, most=2)] == [2, 3]
    assert [event.stream for event in await claim_parked(outbox)] == [1]


@pytest.mark.parametrize("what", ["disabled", "removed"])
async def test_nothing_parked_is_claimed_for_an_endpoint_that_is(store: Store, what: str) -> None:
    outbox = await parked(store)
    if what == "disabled":
        await outbox.lanes.disable("crm", "operator")
    else:
        await outbox.lanes.sync_endpoints([])
    assert await claim_parked(outbox) == []
    assert len(await rows(outbox, schema.parked)) == 1


@pytest.mark.parametrize("what", ["emptied", "gone"])
async def test_a_parked_event_that_has_nothing_left_to_send_is_let_go(store: Store, what: str) -> None:
    outbox = await parked(store)
    gone = sa.delete(schema.events) if what == "gone" else sa.update(schema.events).values(body=b"", expires_at=0)
    await outbox._commit.call(lambda connection: connection.execute(gone))
    assert await claim_parked(outbox) == []
    assert await rows(outbox, schema.parked) == []


async def test_what_is_parked_is_not_settled(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(parking(lane))
    await outbox.lanes.settle(settled(lane, 2))
    assert await outbox.lanes.unsettled() == {
        "crm": 2,
        "other": 3 + 1,
    }  # one parked, one behind; its notice for the other
