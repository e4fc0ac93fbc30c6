"""What the relay tells about its own endpoints: to the others, with what it is about, and without end to nobody."""

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from relay.clock import instant
from relay.events.catalog import parse
from relay.events.operator import DeliveryDead, DeliveryParked, RelayEvent, UndeliveredData
from relay.ids import event_id
from relay.outbox import schema
from relay.outbox.log.streams import orphans
from relay.outbox.operator.access import open_log
from relay.outbox.operator.event_pages import Selection
from relay.outbox.outbox import Outbox
from relay.outbox.records import DeadLetter, Growth, Lane, ParkedSettlement, Settlement
from tests.support.builders import EPOCH_MS, new_stream, run, stream_id
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, one_stream, parking, rows, the_lane

NOTICES = Selection(lambda room, _: not room)


def given_up(lane: Lane) -> Settlement:
    head = lane.cursor + 1
    return Settlement(lane.id, lane.fence, head, head, 0, dead=DeadLetter(head, 12, "status 404", lane.last_sent))


async def told(outbox: Outbox, endpoint: str) -> list[RelayEvent]:
    """What lies behind this endpoint's cursors on the relay's own streams, parsed as a receiver would."""
    notices: list[RelayEvent] = []
    for lane in await claim(outbox.lanes, endpoint):
        if not lane.room:
            assert lane.participant == ""
            for logged in await outbox.lanes.read(lane.stream, lane.cursor, 100):
                event = parse(logged.body)
                assert isinstance(event, RelayEvent)
                assert (event.id, event.stream.sequence) == (logged.id, logged.sequence)
                notices.append(event)
    return notices


def undelivered(sequence: int, attempts: int, reason: str) -> UndeliveredData:
    return UndeliveredData(
        endpoint="crm",
        event_id=event_id(stream_id(1), sequence),
        event_type="stt.speech_started",
        stream_id=stream_id(1),
        sequence=sequence,
        attempts=attempts,
        reason=reason,
    )


async def test_the_others_are_told_of_what_was_parked_and_given_up(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other", "third")
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(parking(lane, retry_at=EPOCH_MS))
    lane = replace(lane, cursor=1, last_sent=1)
    await outbox.lanes.settle(given_up(lane))
    (aside,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
    dead = DeadLetter(1, 9, "status 410", 0)
    await outbox.lanes.settle_parked(ParkedSettlement(aside.lane, 1, aside.fence, 9, dead=dead))

    notices = await told(outbox, "other")
    assert [(type(one), one.stream.sequence) for one in notices] == [
        (DeliveryParked, 1),
        (DeliveryDead, 2),
        (DeliveryDead, 3),
    ]
    assert [one.model_dump()["data"] for one in notices] == [
        undelivered(1, 3, "status 500").model_dump(),
        undelivered(2, 12, "status 404").model_dump(),
        undelivered(1, 9, "status 410").model_dump(),
    ]
    (stream,) = {one.stream.id for one in notices}
    assert [one.id for one in notices] == [event_id(stream, sequence) for sequence in (1, 2, 3)]
    assert {one.timestamp for one in notices} == {instant(EPOCH_MS)}
    assert await told(outbox, "third") == notices
    await outbox.lanes.release([(lane.id, lane.fence)])
    assert await told(outbox, "crm") == []


async def test_notices_are_read_page_by_page_also_after_the_clock_was_set_back(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    lane = await the_lane(outbox.lanes)
    for sequence in (1, 2, 3):
        await outbox.lanes.settle(given_up(replace(lane, cursor=sequence - 1)))
        store.clock.set_by -= 60_000
    at, read = None, []
    async with open_log(store.url, store.clock) as log:
        for _ in range(6):
            page = await log.browsing.events(NOTICES, before=at, since=0, limit=1)
            read += [(event.sequence, parse(event.body).timestamp) for event in page.events]
            if (at := page.next) is None:
                break
    assert read == [(n, instant(EPOCH_MS - (n - 1) * 60_000)) for n in (3, 2, 1)], "each once, when it happened"


async def test_many_that_are_given_up_at_once_are_told_in_one_stream_per_endpoint(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a", "b"])
    for number in (1, 2, 3):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, 1))
    await asyncio.gather(*(outbox.lanes.settle(given_up(lane)) for lane in await claim(outbox.lanes, "a", "b")))
    newest = sa.select(schema.streams.c.about, schema.streams.c.last_sequence).where(
        schema.streams.c.about.is_not(None)
    )
    assert await outbox._reader.query(lambda connection: {tuple(row) for row in connection.execute(newest)}) == {
        ("a", 3),
        ("b", 3),
    }
    for endpoint, about in (("a", "b"), ("b", "a")):
        notices = await told(outbox, endpoint)
        assert [one.stream.sequence for one in notices] == [1, 2, 3]
        assert {one.model_dump()["data"]["endpoint"] for one in notices} == {about}
        assert {one.model_dump()["data"]["stream_id"] for one in notices} == {stream_id(n) for n in (1, 2, 3)}


async def test_a_crash_cannot_come_between_a_delivery_that_died_and_its_notice(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    lane = await the_lane(outbox.lanes)
    refuse = "CREATE TRIGGER refuse BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no'); END"
    if store.kind == "postgresql":
        refuse = "ALTER TABLE events ADD CONSTRAINT refuse CHECK (sequence < 0) NOT VALID"
    await outbox._commit.call(lambda connection: connection.exec_driver_sql(refuse))
    with pytest.raises(sa.exc.IntegrityError):
        await outbox.lanes.settle(given_up(lane))
    assert await rows(outbox, schema.dead_letters) == []
    store.clock.at += LEASE_MS
    assert (await the_lane(outbox.lanes)).cursor == 0


async def test_a_notice_rings(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    lane, rung = await the_lane(outbox.lanes), asyncio.Queue[Growth]()
    doorbell = outbox.listen(rung.put_nowait)

    async def heard() -> None:
        while await rung.get() != {lane.stream + 1: []}:  # a late one, of what was appended before
            pass

    try:
        async with asyncio.timeout(30):
            await outbox.lanes.settle(parking(lane, retry_at=EPOCH_MS))
            await heard()
            (aside,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
            dead = DeadLetter(1, 12, "status 404", 0)
            await outbox.lanes.settle_parked(ParkedSettlement(aside.lane, 1, aside.fence, 12, dead=dead))
            await heard()
            await outbox.lanes.disable("crm", "gone")
            await heard()
    finally:
        doorbell.close()


async def test_where_nobody_else_is_there_nothing_is_told(store: Store) -> None:
    outbox = await one_stream(store, "crm", "removed")
    await outbox.lanes.sync_endpoints(["crm"])
    await outbox.lanes.settle(given_up(await the_lane(outbox.lanes)))
    assert len(await rows(outbox, schema.dead_letters)) == 1
    assert len(await rows(outbox, schema.streams)) == 1


async def test_endpoints_that_are_all_down_do_not_tell_each_other_of_notices_without_end(store: Store) -> None:
    outbox = await one_stream(store, "a", "b")
    for lane in await claim(outbox.lanes, "a", "b"):
        await outbox.lanes.settle(given_up(lane))
    notices = [lane for lane in await claim(outbox.lanes, "a", "b") if not lane.room]
    assert len(notices) == 2
    for lane in notices:
        await outbox.lanes.settle(parking(lane, retry_at=EPOCH_MS))
    aside = await outbox.lanes.claim_parked({"a": 9, "b": 9}, lease_ms=LEASE_MS)
    assert len(aside) == 2
    for event in aside:
        dead = DeadLetter(event.record.sequence, 12, "connect", 0)
        await outbox.lanes.settle_parked(
            ParkedSettlement(event.lane, event.record.sequence, event.fence, 12, dead=dead)
        )
    types = sa.select(schema.events.c.type).where(schema.events.c.type.like("delivery.%"))
    found = await outbox._reader.query(lambda connection: list(connection.execute(types).scalars()))
    assert found == ["delivery.dead", "delivery.dead"], "one for each endpoint's own event"


async def test_the_relays_own_streams_are_nobodys_orphans(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    await outbox.lanes.disable("crm", "operator")
    await outbox.aclose()
    store.clock.at += 1 << 30
    after = await store.open()
    found = await after._reader.query(lambda connection: orphans(connection, store.clock.at))
    assert found == [stream_id(1)]


async def test_a_later_endpoint_is_notified_from_then_on_and_the_failing_one_never(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    await outbox.lanes.settle(given_up(lane := await the_lane(outbox.lanes)))
    await outbox.lanes.sync_endpoints(["crm", "other", "late"])
    await outbox.lanes.settle(given_up(replace(lane, cursor=1)))
    assert [one.stream.sequence for one in await told(outbox, "late")] == [2]
    assert [one.stream.sequence for one in await told(outbox, "other")] == [1, 2]
    await outbox.lanes.release([(lane.id, lane.fence)])
    assert await told(outbox, "crm") == []
