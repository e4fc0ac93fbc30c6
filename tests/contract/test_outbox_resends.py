"""What was delivered is sent again when an operator asks for it: the same, in order, and nothing else is disturbed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.clock import SystemClock
from relay.errors import Fenced
from relay.events.catalog import CATALOG
from relay.outbox import schema
from relay.outbox.log.resends import Resend, Resent
from relay.outbox.outbox import Outbox
from relay.outbox.records import Attempt, DeadLetter, ParkedEvent, ParkedSettlement, Parking, Settlement, StreamShare
from tests.support.builders import (
    EPOCH_MS,
    durable,
    ended,
    endpoint,
    interim,
    new_stream,
    overlap,
    own,
    run,
    said,
    stream_id,
    track,
)
from tests.support.dispatch.dispatching import counted, delivering
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_situation import looking
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, rows, settled, sqlite, the_lane, until

DAY = 86_400_000
ALL = Resend("crm", 0, 1 << 60, tuple(CATALOG))


async def delivered(store: Store, count: int = 3, *, name: str = "relay") -> Outbox:
    """An outbox with one stream that crm has got all of; its lane is let go."""
    outbox = await store.open(name)
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, count))
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, count))
    await outbox.lanes.release([(lane.id, lane.fence)])
    return outbox


async def ask(store: Store, resend: Resend = ALL, **settings: Any) -> Resent:
    async with looking(store) as log:
        return await log.redelivery.resend(resend, settings.pop("wanted", lambda _room, _identity: True), **settings)


async def next_one(outbox: Outbox) -> ParkedEvent | None:
    claimed = await outbox.lanes.claim_parked({"crm": 9}, lease_ms=LEASE_MS)
    assert len(claimed) <= 1
    return claimed[0] if claimed else None


def took(event: ParkedEvent) -> ParkedSettlement:
    attempt = Attempt(event.lane, event.record.sequence, 1, EPOCH_MS, "ok", 200, 1.0)
    return ParkedSettlement(
        event.lane, event.record.sequence, event.fence, event.attempts, tries=(attempt,), resend=event.resend
    )


async def send_all(outbox: Outbox) -> list[tuple[int, int]]:
    """(sequence, previous) of what is sent again, one after the other."""
    sent = []
    while (event := await next_one(outbox)) is not None:
        sent.append((event.record.sequence, event.previous))
        await outbox.lanes.settle_parked(took(event))
    return sent


async def test_a_stream_is_sent_again_in_order_and_its_lane_is_left_alone(store: Store) -> None:
    outbox = await delivered(store)
    before = await rows(outbox, schema.lanes)
    assert await ask(store) == Resent(events=3, streams=1)
    assert await send_all(outbox) == [(1, 0), (2, 1), (3, 2)]
    assert await rows(outbox, schema.lanes) == before
    assert await rows(outbox, schema.resends) == [], "it is over"


async def test_a_dry_run_counts_and_asks_for_nothing(store: Store) -> None:
    outbox = await delivered(store)
    assert await ask(store, dry_run=True) == Resent(events=3, streams=1)
    assert await rows(outbox, schema.resends) == []


async def test_a_resend_goes_on_where_it_was_after_its_dispatcher_was_killed(store: Store) -> None:
    outbox = await delivered(store)
    await ask(store)
    first = await next_one(outbox)
    assert first is not None
    await outbox.lanes.settle_parked(took(first))
    lost = await next_one(outbox)
    assert lost is not None
    other = await store.open("other")
    assert await next_one(other) is None, "it is leased"
    store.clock.at += LEASE_MS
    assert await send_all(other) == [(2, 1), (3, 2)]
    again = await store.open("again")
    await ask(store)
    held = await next_one(again)
    assert held is not None
    await again.lanes.reclaim()  # as after a restart under the same name
    assert await send_all(again) == [(1, 0), (2, 1), (3, 2)]


async def test_only_what_was_emitted_in_that_time_and_is_asked_for_is_sent_again(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number, (identity, room) in enumerate([("alice", "support"), ("bob", "lobby")], 1):
        log = await outbox.open_stream(track(number, identity, room))
        events = [said(number, n, identity, "hello", at=EPOCH_MS + n) for n in range(1, 5)]
        await log.append([*events, durable(number, 5, at=EPOCH_MS + 3)])
        lane = await the_lane(outbox.lanes)
        await outbox.lanes.settle(settled(lane, 5))
    some = Resend("crm", EPOCH_MS + 2, EPOCH_MS + 4, ("transcript.final",))
    resent = await ask(store, some, wanted=lambda room, identity: (room, identity) == ("support", "alice"))
    assert resent == Resent(events=2, streams=1)
    assert await send_all(outbox) == [(2, 0), (3, 2)]


async def test_an_event_that_is_older_than_its_stream_is_part_of_it(store: Store) -> None:
    """As those of a room's own stream, which wait for it to be opened."""
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    store.clock.at += 10_000
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 2))
    await outbox.lanes.settle(settled(await the_lane(outbox.lanes), 2))
    assert (await ask(store, Resend("crm", 0, EPOCH_MS + 1, tuple(CATALOG)))).events == 2


async def test_a_stream_whose_clock_was_set_back_is_part_of_the_time_of_its_events(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1), durable(1, 2, at=EPOCH_MS + DAY), durable(1, 3, at=EPOCH_MS + DAY)])
    await log.abandon()  # a day before
    await outbox.lanes.settle(settled(await the_lane(outbox.lanes), 3))
    assert (await ask(store, Resend("crm", EPOCH_MS + DAY, 1 << 60, tuple(CATALOG)))).events == 2
    assert await ask(store, Resend("crm", EPOCH_MS + DAY + 1, 1 << 60, tuple(CATALOG))) == Resent()


async def test_interims_and_what_is_pending_parked_or_dead_are_not_part_of_it(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append([interim(1, 1, revision=1), *run(1, 2, 6)])
    lane = await the_lane(outbox.lanes)
    aside = Parking(2, 5, "status 500", 1, EPOCH_MS + DAY)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 2, 2, 0, parked=aside))
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 3, 3, 0, dead=DeadLetter(3, 12, "status 500", 2)))
    await outbox.lanes.settle(settled(lane, 5))
    assert await ask(store) == Resent(events=2, streams=1)
    assert await send_all(outbox) == [(4, 0), (5, 4)]


async def test_what_fails_again_is_retried_and_given_up_on_and_the_resend_goes_on(store: Store) -> None:
    outbox = await delivered(store)
    await ask(store)
    event = await next_one(outbox)
    assert event is not None
    again = ParkedSettlement(event.lane, 1, event.fence, 1, EPOCH_MS + 5000, resend=event.resend, failed_at=EPOCH_MS)
    await outbox.lanes.settle_parked(again)
    assert await next_one(outbox) is None
    store.clock.at += 5000
    event = await next_one(outbox)
    assert event is not None
    assert (event.record.sequence, event.attempts) == (1, 1)
    dead = DeadLetter(1, 12, "status 500", 0)
    await outbox.lanes.settle_parked(ParkedSettlement(event.lane, 1, event.fence, 12, dead=dead, resend=event.resend))
    assert [row[:2] for row in await rows(outbox, schema.dead_letters)] == [(event.lane, 1)]
    following = await next_one(outbox)
    assert following is not None
    assert following.attempts == 0
    await outbox.lanes.settle_parked(took(following))
    assert (following.record.sequence, following.previous) == (2, 0)
    assert await send_all(outbox) == [(3, 2)]


async def test_two_resends_of_a_stream_are_sent_one_after_the_other(store: Store) -> None:
    outbox = await delivered(store)
    await ask(store)
    await ask(store)
    sent = []
    while (event := await next_one(outbox)) is not None:
        sent.append((event.resend, event.record.sequence))
        await outbox.lanes.settle_parked(took(event))
    assert sent == sorted(sent), "two resends of a stream must follow one another"
    assert [sequence for _, sequence in sent] == [1, 2, 3, 1, 2, 3]


async def delivered_of(store: Store, *identities: str) -> Outbox:
    """An outbox with a stream of one event of each, which crm and bi have got."""
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "bi"])
    for number, identity in enumerate(identities, 1):
        log = await outbox.open_stream(track(number, identity))
        await log.append([said(number, 1, identity, "hello")])
    for lane in await claim(outbox.lanes, "crm", "bi"):
        await outbox.lanes.settle(settled(lane, 1))
    return outbox


async def test_no_other_endpoint_gets_any_of_it(store: Store) -> None:
    outbox = await delivered_of(store, "alice")
    assert await ask(store) == Resent(events=1, streams=1)
    assert await outbox.lanes.claim_parked({"bi": 9}, lease_ms=LEASE_MS) == []
    assert await send_all(outbox) == [(1, 0)]


async def test_no_more_resends_are_claimed_than_there_is_room_for_and_a_share_is_kept_to(store: Store) -> None:
    outbox = await delivered_of(store, "alice", "bob", "carol")
    await ask(store, wanted=lambda _room, identity: identity == "alice")
    sent = await next_one(outbox)
    assert sent is not None
    await outbox.lanes.settle_parked(took(sent))
    store.clock.at += 1
    await ask(store)
    claimed = await outbox.lanes.claim_parked({"crm": 2}, lease_ms=LEASE_MS)  # the first of alice's is finished
    assert len(claimed) == 2
    store.clock.at += LEASE_MS
    bobs = {"crm": StreamShare(0, 2, only=True)}
    claimed = await outbox.lanes.claim_parked({"crm": 9}, lease_ms=LEASE_MS, shares=bobs)
    assert [event.participant for event in claimed] == ["bob"]


async def test_what_the_log_does_not_keep_any_more_is_counted(store: Store) -> None:
    outbox = await delivered(store)
    log = await outbox.open_stream(new_stream(2))
    await log.append([*run(2, 1, 2), durable(2, 3, at=EPOCH_MS + 2 * DAY)])
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 3))
    store.clock.at += 2 * DAY
    await outbox.retention(DAY).prune()
    assert (await ask(store, dry_run=True)).pruned == 3 + 2
    assert (await ask(store, Resend("crm", EPOCH_MS + 2 * DAY, 1 << 60, tuple(CATALOG)), dry_run=True)).pruned == 0
    store.clock.at += 2 * DAY
    await outbox.retention(DAY).prune()
    assert (await ask(store, dry_run=True)).pruned == 3 + 3
    assert (await ask(store, Resend("crm", EPOCH_MS + 2 * DAY, 1 << 60, tuple(CATALOG)), dry_run=True)).pruned == 0


async def test_what_is_to_be_sent_again_is_kept_until_it_was_and_nothing_else(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in (1, 2):
        log = await outbox.open_stream(new_stream(number))
        await log.append([*run(number, 1, 2), ended(number, 3)])
        await outbox.lanes.settle(settled(await the_lane(outbox.lanes), 3))
        if number == 1:
            await ask(store)
    store.clock.at += 30 * DAY
    await outbox.retention(DAY).prune()
    assert await outbox.history(stream_id(2)) == []
    assert [sequence for sequence, _ in await send_all(outbox)] == [1, 2, 3]
    await outbox.retention(DAY).prune()
    assert await rows(outbox, schema.streams) == []


async def test_what_was_to_be_sent_again_to_a_removed_endpoint_goes_with_its_stream(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    await (await outbox.open_stream(new_stream())).append([*run(1, 1, 2), ended(1, 3)])
    await outbox.lanes.settle(settled(await the_lane(outbox.lanes), 3))
    await ask(store)
    await outbox.lanes.sync_endpoints([])
    store.clock.at += 2 * DAY
    await outbox.retention(DAY).prune()
    assert [await rows(outbox, table) for table in (schema.streams, schema.lanes, schema.resends)] == [[], [], []]


async def test_what_was_purged_is_not_sent_again(store: Store) -> None:
    outbox = await delivered(store)
    await ask(store)
    held = await next_one(outbox)
    assert held is not None
    async with looking(store) as log:
        await log.purge.participant("alice")
    assert await rows(outbox, schema.resends) == []
    with pytest.raises(Fenced):
        await outbox.lanes.settle_parked(took(held))  # with an answer that may repeat it


async def test_an_overlap_that_is_sent_again_is_taken_from_its_dispatcher_by_a_purge(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    await (await outbox.open_stream(own(1))).append([overlap(1, 1, "alice", "bob"), overlap(1, 2, "bob", "carol")])
    await outbox.lanes.settle(settled(await the_lane(outbox.lanes), 2))
    await ask(store)
    held = await next_one(outbox)
    assert held is not None
    async with looking(store) as log:
        await log.purge.participant("alice")
    with pytest.raises(Fenced):
        await outbox.lanes.settle_parked(took(held))  # with an answer that may repeat it
    assert await send_all(outbox) == [(2, 0)]


async def test_an_endpoint_that_recovers_or_is_enabled_has_its_resends_due(store: Store) -> None:
    outbox = await delivered(store)
    await ask(store)
    event = await next_one(outbox)
    assert event is not None
    later = ParkedSettlement(event.lane, 1, event.fence, 1, EPOCH_MS + DAY, resend=event.resend, outage=True)
    await outbox.lanes.settle_parked(later)
    assert await outbox.lanes.recover("crm", since=None) == 1
    event = await next_one(outbox)
    assert event is not None
    later = ParkedSettlement(event.lane, 1, event.fence, 2, EPOCH_MS + DAY, resend=event.resend, failed_at=EPOCH_MS)
    await outbox.lanes.settle_parked(later)
    assert await outbox.lanes.recover("crm", since=EPOCH_MS + 1) == 0
    assert await outbox.lanes.recover("crm", since=EPOCH_MS) == 1
    async with looking(store) as log:
        await log.endpoints.disable("crm", "operator")
        assert await next_one(outbox) is None
        await log.endpoints.enable("crm", replay=False)
    assert await rows(outbox, schema.resends) == [], "--skip drops what it has not got"


async def test_a_claim_of_a_resend_that_was_dropped_does_not_fit_the_next_one(store: Store) -> None:
    outbox = await delivered(store)
    await ask(store)
    dropped = await next_one(outbox)
    assert dropped is not None
    async with looking(store) as log:
        await log.endpoints.disable("crm", "operator")
        await log.endpoints.enable("crm", replay=False)
    await ask(store)
    assert await next_one(await store.open("other")) is not None
    with pytest.raises(Fenced):
        await outbox.lanes.settle_parked(took(dropped))


@pytest.fixture
async def real_time(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite(tmp_path) as opened:
        opened.clock = SystemClock()  # type: ignore[assignment]  # what is due is due
        yield opened


async def test_a_running_relay_resends_the_same_bytes_marked_beside_new_events(
    real_time: Store, receiver: Receiver
) -> None:
    store, clock = real_time, SystemClock()
    outbox = await store.open()
    crm = endpoint(url=receiver.url, events=["stt.*"])
    async with delivering(outbox, crm, sweep_seconds=0.05) as dispatcher:
        await outbox.lanes.sync_endpoints(["crm"])
        logs = {number: await outbox.open_stream(new_stream(number)) for number in (1, 2)}
        for number, log in logs.items():
            await log.append([durable(number, n, at=clock.now_ms()) for n in range(1, 21)])
        await receiver.wait(40)
        await until(lambda: counted(dispatcher, "delivered") == 40)
        bodies = {r.headers["webhook-id"]: r.body for r in receiver.requests}
        await logs[1].append([durable(1, 21, at=clock.now_ms())])
        await receiver.wait(41)
        receiver.answer = lambda _: Answer(after=0.002)
        count = (await ask(store)).events
        assert count >= 40
        await logs[2].append([durable(2, 21, at=clock.now_ms())])
        await receiver.wait_for(lambda: len([r for r in receiver.requests if "relay-resend" in r.headers]) == count)
    again = [r for r in receiver.requests if r.headers.get("relay-resend") == "true"]
    new = [r for r in receiver.requests if "relay-resend" not in r.headers]
    for number in (1, 2):
        sequences = [
            n for r in again if r.json()["stream"]["id"] == stream_id(number) for n in [r.json()["stream"]["sequence"]]
        ]
        assert sequences == list(range(1, len(sequences) + 1))
        assert len(sequences) >= 20
    assert all(bodies[r.headers["webhook-id"]] == r.body for r in again if r.headers["webhook-id"] in bodies), (
        "a resend must have the bytes of the first delivery"
    )
    live = [(r.json()["stream"]["sequence"], int(r.headers["relay-previous-sequence"])) for r in new]
    assert sorted(live) == sorted((n, n - 1) for n in range(1, 22) for _ in (1, 2))
