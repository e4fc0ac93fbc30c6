"""What leaves the log, and above all what does not."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from relay.errors import Fenced
from relay.events.envelope import StreamEvent
from relay.outbox import retention, schema
from relay.outbox.outbox import Outbox
from relay.outbox.records import Attempt, DeadLetter, ParkedSettlement, Record, Settlement
from tests.support.builders import EPOCH_MS, durable, ended, interim, new_stream, run
from tests.support.outbox.outbox_situation import attempt
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, one_stream, parking, rows, settled, the_lane

DAY = 86_400_000
KEEP = 7 * DAY


async def stream(outbox: Outbox, events: list[StreamEvent]) -> None:
    log = await outbox.open_stream(new_stream())
    for event in events:
        await log.append([event])


async def settle_all(outbox: Outbox, cursor: int, *endpoints: str) -> list[tuple[int, int]]:
    held = await outbox.lanes.claim(dict.fromkeys(endpoints, 10), lease_ms=1)
    for lane in held:
        tries = (Attempt(lane.id, cursor, 1, outbox.lanes._clock.now_ms(), "ok", 200, 1.0),)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, cursor, cursor, 0, tries=tries))
    return [(lane.id, lane.fence) for lane in held]


def in_steps_of(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(retention, "STEP", rows)
    monkeypatch.setattr(retention, "STEP_BESIDE", rows)


async def counts(outbox: Outbox) -> dict[str, int]:
    tables = (schema.streams, schema.events, schema.lanes, schema.attempts, schema.dead_letters, schema.parked)
    return await outbox._reader.query(
        lambda connection: {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in tables
        }
    )


async def test_a_closed_stream_goes_when_all_have_it_and_the_time_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_steps_of(monkeypatch, 2)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a", "b"])
    await stream(outbox, [*run(1, 1, 4), ended(1, 5)])
    await settle_all(outbox, 5, "a", "b")
    store.clock.at += KEEP
    await outbox.retention(KEEP).prune()
    assert (await counts(outbox))["events"] == 5
    store.clock.at += 1
    await outbox.retention(KEEP).prune()
    assert set((await counts(outbox)).values()) == {0}


async def test_what_one_endpoint_has_not_got_stays_however_old(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["up", "down"])
    await stream(outbox, [*run(1, 1, 4), ended(1, 5)])
    await settle_all(outbox, 5, "up")
    await settle_all(outbox, 4, "down")
    store.clock.at += 100 * KEEP
    await outbox.retention(KEEP).prune()
    kept = await counts(outbox)
    assert (kept["streams"], kept["events"], kept["lanes"]) == (1, 5, 2)
    assert [lane.cursor for lane in await outbox.lanes.claim({"down": 1}, lease_ms=1)] == [4]


async def test_the_time_counts_from_the_last_settle(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["late"])
    await stream(outbox, [*run(1, 1, 4), ended(1, 5)])
    store.clock.at += 100 * KEEP
    await settle_all(outbox, 5, "late")
    store.clock.at += KEEP
    await outbox.retention(KEEP).prune()
    assert (await counts(outbox))["events"] == 5


async def test_an_open_stream_loses_what_is_old_and_behind_every_cursor(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a", "b"])
    old = [durable(1, sequence) for sequence in range(1, 6)]
    await stream(outbox, [*old, durable(1, 6, at=EPOCH_MS + 8 * DAY)])
    await settle_all(outbox, 6, "a")
    held = await settle_all(outbox, 3, "b")
    store.clock.at += 8 * DAY
    await outbox.retention(KEEP).prune()
    assert [one.sequence for one in await outbox.history(new_stream().id)] == [4, 5, 6]
    await outbox.lanes.release(held)
    await settle_all(outbox, 6, "b")
    await outbox.retention(KEEP).prune()
    assert [one.sequence for one in await outbox.history(new_stream().id)] == [6]


async def test_a_lane_whose_last_event_is_removed_stays_with_its_dispatcher(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 3))
    store.clock.at += KEEP + 1
    await outbox.retention(KEEP).prune()
    assert await outbox.history(new_stream().id) == []
    await outbox.lanes.settle(settled(lane, 4))


async def test_a_stream_that_is_behind_does_not_keep_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_LOOK", 2)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a"])
    for number in (1, 2, 3):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, 3))
    await log.append([ended(3, 4)])
    for lane in await outbox.lanes.claim({"a": 3}, lease_ms=1):
        if lane.stream != 2:
            await outbox.lanes.settle(Settlement(lane.id, lane.fence, 4 if lane.stream == 3 else 3, 3, 0))
    store.clock.at += 8 * DAY
    await outbox.retention(KEEP).prune()
    kept = [len(await outbox.history(new_stream(number).id)) for number in (1, 2, 3)]
    assert kept == [0, 3, 0]
    assert (await counts(outbox))["streams"] == 2


async def test_a_removed_endpoint_holds_nothing_back_and_learns_what_it_missed(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["gone", "stays"])
    await stream(outbox, [*run(1, 1, 4), durable(1, 5, at=EPOCH_MS + 8 * DAY)])
    (lane,) = await outbox.lanes.claim({"gone": 1}, lease_ms=1)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 0, 0, 11, EPOCH_MS, failing_since=EPOCH_MS))
    (held,) = await outbox.lanes.claim({"gone": 1}, lease_ms=10 * DAY)
    await settle_all(outbox, 5, "stays")
    await outbox.lanes.sync_endpoints(["stays"])
    store.clock.at += 8 * DAY
    await outbox.retention(KEEP).prune()
    with pytest.raises(Fenced):
        await outbox.lanes.settle(Settlement(held.id, held.fence, 1, 1, 0))
    await outbox.lanes.sync_endpoints(["gone", "stays"])
    store.clock.at += 3 * DAY
    (lane,) = await outbox.lanes.claim({"gone": 1}, lease_ms=1)
    assert (lane.cursor, lane.last_sent) == (4, 4)
    assert (lane.attempts, lane.failing_since) == (0, None), "another event failed"
    assert [one.sequence for one in await outbox.lanes.read(lane.stream, lane.cursor, 10)] == [5]


@pytest.mark.parametrize("either_store", ["sqlite"], indirect=True)
async def test_a_round_is_made_in_small_steps_and_looks_without_writing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much a disabled endpoint holds back: appends come in between."""
    in_steps_of(monkeypatch, 4)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a", "crm"])
    for number in range(1, 31):
        log = await outbox.open_stream(new_stream(number))
        await log.append([interim(number, 1, revision=1), *run(number, 2, 9), ended(number, 10)])
    for number in range(31, 91):
        log = await outbox.open_stream(new_stream(number))
        await log.append([durable(number, 1, at=EPOCH_MS + (KEEP if number > 60 else 0))])
    for lane in await outbox.lanes.claim({"a": 90, "crm": 90}, lease_ms=1):
        if lane.endpoint == "a" or lane.stream == 1 or lane.stream > 60:
            await outbox.lanes.settle(settled(lane, 10 if lane.stream <= 30 else 1))
    await outbox.lanes.disable("crm", "operator")
    store.clock.at += KEEP + DAY
    changed, write = list[int](), outbox._commit.call

    def call(work: Callable[[sa.Connection], object], **more: Any) -> object:
        def counted(connection: sa.Connection) -> object:
            before = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
            done = work(connection)
            changed.append(connection.exec_driver_sql("SELECT total_changes()").scalar_one() - before)
            return done

        return write(counted, **more)

    monkeypatch.setattr(outbox._commit, "call", call)
    await outbox.retention(KEEP).prune()
    assert (await counts(outbox))["streams"] == 89 + 1, "what both have is gone, and the relay's own stream is new"
    assert max(changed) <= 4 + 4, "rows of a step, and a stream's lanes"
    assert len(changed) < 20, "30 interims and a stream, not a look at each stream"


async def test_an_interim_loses_its_body_after_its_time_but_not_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_steps_of(monkeypatch, 2)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a"])
    await stream(outbox, [interim(1, n, revision=n) for n in range(1, 6)] + [durable(1, 6)])
    store.clock.at += 10_000 + retention.INTERIM_GRACE_MS
    await outbox.retention(KEEP).prune()
    assert [one.body == b"" for one in await read(outbox)] == [False] * 6
    store.clock.at += 1
    await outbox.retention(KEEP).prune()
    after = await read(outbox)
    assert [one.sequence for one in after] == [1, 2, 3, 4, 5, 6]
    assert [one.body == b"" for one in after] == [True] * 5 + [False]
    assert [one.expires_at for one in after] == [0] * 5 + [None], "no dispatcher sends what is over"
    assert [one.sequence for one in await outbox.history(new_stream().id)] == [6]


async def read(outbox: Outbox) -> list[Record]:
    return await outbox.lanes.read(1, 0, 100)


async def test_attempts_go_by_their_age(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a"])
    await stream(outbox, run(1, 1, 5))
    held = await settle_all(outbox, 1, "a")
    store.clock.at += KEEP
    await outbox.lanes.release(held)
    await settle_all(outbox, 2, "a")
    store.clock.at += 1
    await outbox.retention(KEEP).prune()
    assert (await counts(outbox))["attempts"] == 1


async def test_attempts_dated_by_a_wrong_clock_go_with_those_made_after_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_steps_of(monkeypatch, 2)
    outbox = await one_stream(store, events=7)
    lane = await the_lane(outbox.lanes)
    behind, ahead = EPOCH_MS - 100 * KEEP, EPOCH_MS + 100 * KEEP
    for sequence, at in enumerate((ahead, ahead, ahead, EPOCH_MS, EPOCH_MS + 1, behind, ahead), 1):
        tries = (attempt(lane, sequence, at=at),)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, sequence, sequence, 0, tries=tries))
    left = []
    for elapsed in (-100 * KEEP, KEEP, KEEP + 1, KEEP + 2, 101 * KEEP, 101 * KEEP + 1):
        store.clock.at = EPOCH_MS + elapsed
        await outbox.retention(KEEP).prune()
        left.append(len(await rows(outbox, schema.attempts)))
    assert left == [7, 7, 3, 1, 1, 0]


async def test_without_an_endpoint_events_go_by_their_age(store: Store) -> None:
    outbox = await store.open()
    logs = [await outbox.open_stream(new_stream(number)) for number in (1, 2)]
    for number, log in enumerate(logs, 1):
        await log.append([*run(number, 1, 2), durable(number, 3, at=EPOCH_MS + 1)])
    store.clock.at += 1
    await logs[0].append([ended(1, 4)])
    left = []
    for elapsed in (KEEP, KEEP + 1, KEEP + 2):
        store.clock.at = EPOCH_MS + elapsed
        await outbox.retention(KEEP).prune()
        left.append([len(await outbox.history(new_stream(number).id)) for number in (1, 2)])
    assert left == [[4, 3], [4, 1], [0, 0]]
    assert len(await rows(outbox, schema.streams)) == 1, "one goes on"


async def test_a_writer_that_ended_long_ago_is_forgotten(store: Store) -> None:
    outbox = await store.open()
    ended = store.clock.now_ms() - KEEP
    store.execute(f"INSERT INTO writers VALUES ('forgotten', 'job-1', {ended - 1}), ('kept', 'job-2', {ended})")
    await outbox.retention(KEEP).prune()
    assert [row[0] for row in await rows(outbox, schema.writers)] == ["kept"]


async def closed_and_parked(store: Store, *endpoints: str) -> Outbox:
    """One closed stream that is settled but for its first event, which is parked for ``crm``."""
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(endpoints)
    await stream(outbox, [*run(1, 1, 4), ended(1, 5)])
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(parking(lane))
    await outbox.lanes.settle(settled(lane, 5))
    return outbox


async def test_a_stream_stays_while_an_event_is_parked_and_for_its_retention_after(store: Store) -> None:
    outbox = await closed_and_parked(store, "crm")
    store.clock.at += 100 * KEEP
    await outbox.retention(KEEP).prune()
    assert len(await outbox.history(new_stream().id)) == 5
    (event,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
    dead = DeadLetter(1, 12, "status 500", 0)
    await outbox.lanes.settle_parked(ParkedSettlement(event.lane, 1, event.fence, 12, dead=dead))
    store.clock.at += KEEP
    await outbox.retention(KEEP).prune()
    assert len(await outbox.history(new_stream().id)) == 5, "what is dead is kept as long as what was delivered"
    store.clock.at += 1
    await outbox.retention(KEEP).prune()
    assert set((await counts(outbox)).values()) == {0}


async def test_what_is_parked_for_a_removed_endpoint_goes_with_its_stream(store: Store) -> None:
    outbox = await closed_and_parked(store, "crm")
    await outbox.lanes.sync_endpoints([])
    store.clock.at += 8 * DAY
    await outbox.retention(KEEP).prune()
    assert set((await counts(outbox)).values()) == {0}


async def test_an_open_stream_keeps_what_is_parked_and_dead_letters_go_with_their_events(store: Store) -> None:
    outbox = await one_stream(store, events=5)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, dead=DeadLetter(1, 12, "status 500", 0)))
    await outbox.lanes.settle(settled(lane, 2))
    await outbox.lanes.release([(lane.id, lane.fence)])
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(parking(lane))
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 4, 4, 0, dead=DeadLetter(4, 12, "status 500", 2)))
    await outbox.lanes.settle(settled(lane, 5))
    store.clock.at += 8 * DAY
    await outbox.retention(KEEP).prune()
    assert [one.sequence for one in await outbox.history(new_stream().id)] == [3, 4, 5]
    assert [row[1] for row in await rows(outbox, schema.dead_letters)] == [4]
    (event,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
    assert event.record.sequence == 3


async def test_what_is_parked_or_dead_of_another_stream_stays(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in (1, 2, 3):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, 3))
    await log.append([ended(3, 4)])
    one, two, three = sorted(await claim(outbox.lanes), key=lambda lane: lane.stream)
    dead = Settlement(two.id, two.fence, 2, 2, 0, dead=DeadLetter(2, 12, "status 500", 1))
    for settlement in (settled(one, 3), parking(two), dead, settled(three, 4)):
        await outbox.lanes.settle(settlement)
    store.clock.at += 8 * DAY
    await outbox.retention(KEEP).prune()
    assert [len(await outbox.history(new_stream(number).id)) for number in (1, 2, 3)] == [0, 3, 0]
    assert len(await rows(outbox, schema.dead_letters)) == 1
    (event,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
    assert (event.stream, event.record.sequence) == (2, 1)


async def test_a_disabled_endpoint_holds_back_what_it_has_not_got(store: Store) -> None:
    outbox = await one_stream(store)
    await outbox.lanes.disable("crm", "operator")
    store.clock.at += 100 * KEEP
    await outbox.retention(KEEP).prune()
    assert len(await outbox.history(new_stream().id)) == 3


async def test_notices_that_all_have_go_by_their_age(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "other"])
    await outbox.lanes.disable("crm", "operator")
    lane = await the_lane(outbox.lanes, "other")
    store.clock.at += 8 * DAY
    await outbox.retention(KEEP).prune()
    assert (await counts(outbox))["events"] == 1
    await outbox.lanes.settle(settled(lane, 1))
    await outbox.retention(KEEP).prune()
    assert (await counts(outbox))["events"] == 0
    assert (await counts(outbox))["streams"] == 1


async def test_short_streams_go_together_and_long_ones_in_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    in_steps_of(monkeypatch, 6)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["a"])
    for number, events in enumerate((2, 2, 2, 14, 6, 2), 1):
        log = await outbox.open_stream(new_stream(number))
        await log.append([*run(number, 1, events - 1), ended(number, events)])
    for lane in await outbox.lanes.claim({"a": 10}, lease_ms=1):
        await outbox.lanes.settle(settled(lane, {1: 2, 2: 2, 3: 2, 4: 14, 5: 6, 6: 2}[lane.stream]))
    store.clock.at += KEEP + 1
    left = [await counts(outbox)]
    write = outbox._commit.call

    async def call(work: Callable[[sa.Connection], object], **more: Any) -> object:
        done = await write(work, **more)
        left.append(await counts(outbox))
        return done

    monkeypatch.setattr(outbox._commit, "call", call)
    await outbox.retention(KEEP).prune()
    assert set(left[-1].values()) == {0}
    removed = [before["events"] - after["events"] for before, after in pairwise(left)]
    assert max(removed) <= 6
    assert 4 in removed, "the first two streams go together"
