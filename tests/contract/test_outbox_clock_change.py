"""The wall clock is set while events wait: nothing stalls, nothing storms, nobody is robbed of a lease."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from relay.outbox import schema
from relay.outbox.outbox import Outbox
from relay.outbox.records import Health, Lane, Settlement
from tests.support.builders import EPOCH_MS, durable, new_stream, run
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, one_stream, parking, rows, settled, the_lane

HOUR = 3_600_000
WAIT = 30_000
BOTH_WAYS = pytest.mark.parametrize("by", [HOUR, -HOUR])


async def set_clock(store: Store, outbox: Outbox, by: int) -> None:
    """Set the clock, and have the log follow at once."""
    beyond = store.clock.now_ms()
    store.clock.set_by += by
    await outbox.lanes.shift(by, beyond=beyond)


def retry(lane: Lane, next_at: int) -> Settlement:
    return Settlement(lane.id, lane.fence, lane.cursor, 0, 1, next_at=next_at, failing_since=next_at - WAIT)


@BOTH_WAYS
async def test_a_retry_waits_as_long_as_it_would_have(store: Store, by: int) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(parking(lane, retry_at=EPOCH_MS + WAIT))
    await outbox.lanes.settle(retry(replace(lane, cursor=1), EPOCH_MS + WAIT))
    await set_clock(store, outbox, by)
    store.clock.at += WAIT - 1
    assert await claim(outbox.lanes) == []
    assert await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS) == []
    store.clock.at += 1
    assert (await the_lane(outbox.lanes)).failing_since == EPOCH_MS + by
    assert len(await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)) == 1


@BOTH_WAYS
async def test_what_was_due_is_due(store: Store, by: int) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in (1, 2, 3):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, 3))
    failed, aside, fresh = await claim(outbox.lanes)
    await outbox.lanes.settle(retry(failed, EPOCH_MS))
    await outbox.lanes.settle(parking(aside, retry_at=EPOCH_MS))
    await outbox.lanes.release([(aside.id, aside.fence), (fresh.id, fresh.fence)])
    await set_clock(store, outbox, by)
    assert len(await claim(outbox.lanes)) == 3
    assert len(await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)) == 1


@BOTH_WAYS
async def test_nobody_is_robbed_of_a_lease(store: Store, by: int) -> None:
    outbox = await one_stream(store)
    second = await store.open("second")
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(parking(lane, retry_at=EPOCH_MS))
    assert await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS) != []
    await set_clock(store, outbox, by)
    store.clock.at += LEASE_MS - 1
    assert await claim(second.lanes) == []
    assert await second.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS) == []
    await outbox.lanes.settle(settled(lane, 2))


@BOTH_WAYS
async def test_what_a_dead_dispatcher_had_is_free_after_its_lease(store: Store, by: int) -> None:
    first = await one_stream(store)
    second = await store.open("second")
    await first.lanes.settle(parking(await the_lane(first.lanes), retry_at=EPOCH_MS))
    await first.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
    await claim(second.lanes)
    await set_clock(store, second, by)
    store.clock.at += LEASE_MS
    assert len(await claim(second.lanes)) == 1
    assert len(await second.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)) == 1


@BOTH_WAYS
async def test_what_happened_before_the_log_could_follow_stalls_nothing(store: Store, by: int) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    first, second, third = [await outbox.open_stream(new_stream(number)) for number in (1, 2, 3)]
    await first.append(run(1, 1, 1))
    failed = await the_lane(outbox.lanes)
    await second.append(run(2, 1, 1))
    beyond = store.clock.now_ms()
    store.clock.set_by += by
    now = store.clock.now_ms()
    if by > 0:  # set back, it is not yet due: that is what following is for
        (held,) = await claim(outbox.lanes, most=1)
    await third.append([durable(3, 1)])
    await outbox.lanes.settle(retry(failed, now + WAIT))
    await outbox.lanes.shift(by, beyond=beyond)

    assert {lane.stream for lane in await claim(outbox.lanes)} >= {3}, "it was appended to, and is due"
    store.clock.at += LEASE_MS
    streams = {lane.stream for lane in await claim(outbox.lanes)}
    assert streams >= {1}, "the wait of a retry was meant by the new clock"
    if by > 0:
        assert held.stream in streams, "the lease was, too"


async def test_what_fails_just_after_the_clock_was_set_back_has_not_failed_for_long(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    beyond = store.clock.now_ms()
    store.clock.set_by -= HOUR
    now = store.clock.now_ms()
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 0, 0, 1, next_at=now, failing_since=now))
    await outbox.lanes.note_health([Health("crm", now, None, now, "status 500", None)])
    await outbox.lanes.shift(-HOUR, beyond=beyond)
    assert (await the_lane(outbox.lanes)).failing_since == now
    assert (await outbox.lanes.endpoint_states())["crm"].failing_since == now


async def test_a_lease_that_was_taken_after_the_clock_was_set_back_is_left_alone(store: Store) -> None:
    outbox = await one_stream(store)
    second = await store.open("second")
    beyond = store.clock.now_ms()
    store.clock.at += 10_000
    store.clock.set_by -= 10_000
    await the_lane(outbox.lanes)
    await outbox.lanes.shift(-10_000, beyond=beyond)
    store.clock.at += LEASE_MS - 1
    assert await claim(second.lanes) == []


async def test_a_clock_that_was_set_back_while_no_dispatcher_ran_stalls_nothing(store: Store) -> None:
    outbox = await one_stream(store)
    await outbox.aclose()
    store.clock.set_by -= HOUR
    restarted = await store.open()
    await restarted.lanes.reclaim()
    await the_lane(restarted.lanes)


@BOTH_WAYS
async def test_an_endpoint_is_not_given_up_on_for_time_that_never_passed(store: Store, by: int) -> None:
    outbox = await one_stream(store)
    await outbox.lanes.note_health([Health("crm", EPOCH_MS - 5, None, EPOCH_MS, "connect")])
    await set_clock(store, outbox, by)
    assert (await outbox.lanes.endpoint_states())["crm"].failing_since == EPOCH_MS - 5 + by


async def test_a_writer_that_died_before_the_clock_was_set_back_does_not_live_on(store: Store) -> None:
    outbox = await store.open()
    dead = sa.insert(schema.writers).values(writer="dead", name="dead", lease_until=EPOCH_MS + 6_000)
    young = sa.insert(schema.writers).values(writer="young", name="young", lease_until=EPOCH_MS - HOUR + 1_000)
    await outbox._commit.call(lambda connection: (connection.execute(dead), connection.execute(young)))
    await set_clock(store, outbox, -HOUR)
    assert await rows(outbox, schema.writers) == [
        ("dead", "dead", store.clock.now_ms() + 6_000),
        ("young", "young", EPOCH_MS - HOUR + 1_000),
    ]
