"""Purging: what somebody said is nowhere in the log's files, and what others said is where it was."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import relay.outbox.sqlite.database
from relay.errors import Fenced
from relay.outbox import retention
from relay.outbox.operator import purge
from relay.outbox.operator.access import open_log
from relay.outbox.operator.purge import Purged
from relay.outbox.records import DeadLetter, Lane, Parking, Settlement
from relay.outbox.schema import answers, attempts, dead_letters, lanes, parked, streams
from tests.support.builders import EPOCH_MS, ended, interim, overlap, own, said, stream_id, track
from tests.support.outbox.outbox_situation import attempt, looking
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, postgres, rows, settled, sqlite, the_lane
from tests.support.outbox.postgres import PostgresServer

SECRET = "the combination is four two"


def in_files(directory: Path, text: str) -> list[str]:
    """The files in which the text stands."""
    return [path.name for path in sorted(directory.iterdir()) if text.encode() in path.read_bytes()]


async def test_a_stream_that_has_ended_is_gone_and_its_neighbours_are_untouched(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    alice, bob = await outbox.open_stream(track(1, "alice")), await outbox.open_stream(track(2, "bob"))
    for n in range(1, 4):
        await alice.append([said(1, n, "alice", SECRET)])
        await bob.append([said(2, n, "bob", "hello")])
    lane, others = await claim(outbox.lanes)
    aside = Parking(1, 3, "status 500", 0, EPOCH_MS)
    tries = (attempt(lane, 1, at=EPOCH_MS, status=500),)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, tries=tries, parked=aside))
    dead = DeadLetter(2, 12, "status 500", 1)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 2, 2, 0, dead=dead))
    ok = (attempt(others, 1, at=EPOCH_MS),)
    await outbox.lanes.settle(Settlement(others.id, others.fence, 1, 1, 0, tries=ok))
    await alice.append([ended(1, 4)])
    async with looking(store) as log:
        purged = await log.purge.participant("alice")
        again = await log.purge.participant("alice")
    assert purged == Purged(streams=1, events=4, set_aside=2, attempts=1)
    assert again == Purged()
    assert await outbox.history(stream_id(1)) == []
    assert [len(await rows(outbox, table)) for table in (parked, dead_letters, attempts)] == [0, 0, 1]
    assert [record.sequence for record in await outbox.history(stream_id(2))] == [1, 2, 3]
    await outbox.lanes.settle(settled(others, 2))  # the neighbour's lane is held as before


async def test_a_dispatcher_that_holds_a_lane_settles_no_more_of_it(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    alice = await outbox.open_stream(track(1, "alice"))
    await alice.append([said(1, 1, "alice", SECRET), ended(1, 2)])
    (lane,) = await claim(outbox.lanes)
    async with looking(store) as log:
        await log.purge.participant("alice")
    with pytest.raises(Fenced):
        await outbox.lanes.settle(settled(lane, 1))
    assert await claim(outbox.lanes) == []


async def test_an_open_stream_goes_on_without_what_was_said_before(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    alice = await outbox.open_stream(track(1, "alice"))
    await alice.append([said(1, 1, "alice", SECRET), said(1, 2, "alice", SECRET)])
    (lane,) = await claim(outbox.lanes)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 0, 0, 1, EPOCH_MS + 60_000, failing_since=EPOCH_MS))
    async with looking(store) as log:
        purged = await log.purge.participant("alice")
        assert purged == Purged(open_streams=1, events=2)
        (lane,) = await claim(outbox.lanes)
        await alice.append([said(1, 3, "alice", "goodbye"), ended(1, 4)])
        assert (lane.cursor, lane.last_sent, lane.attempts, lane.failing_since) == (2, 0, 0, None)
        assert [record.sequence for record in await outbox.history(stream_id(1))] == [3, 4]
        (first, *_) = await outbox.lanes.read(lane.stream, 0, 1)
        assert (first.body, first.expires_at) == (b"", 0)
        after_the_call = await log.purge.participant("alice")
    assert after_the_call == Purged(streams=1, events=4)
    assert await outbox.history(stream_id(1)) == []


async def test_what_an_open_stream_appends_during_a_purge_is_kept_and_sent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "STEP", 1)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    alice = await outbox.open_stream(track(1, "alice"))
    await alice.append([said(1, 1, "alice", SECRET), said(1, 2, "alice", SECRET)])
    later = [ended(1, 5), said(1, 4, "alice", "goodbye"), said(1, 3, "alice", "hello")]
    async with looking(store) as log:
        write = log.purge._commit.call

        async def call(run: Callable[[sa.Connection], object], **more: Any) -> object:
            done = await write(run, **more)
            await alice.append([later.pop()])
            return done

        monkeypatch.setattr(log.purge._commit, "call", call)
        assert await log.purge.participant("alice") == Purged(open_streams=1, events=2)
    assert later == []
    assert [record.sequence for record in await outbox.history(stream_id(1))] == [3, 4, 5]
    lane = await the_lane(outbox.lanes)
    assert [record.sequence for record in await outbox.lanes.read(lane.stream, lane.cursor, 10)] == [3, 4, 5]
    async with looking(store) as log:
        assert await log.purge.participant("alice") == Purged(streams=1, events=5)


async def test_overlaps_that_name_the_participant_lose_their_bodies_and_no_others(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number, identity in enumerate(("alice", "bob", "carol"), 1):
        log_of_one = await outbox.open_stream(track(number, identity))
        await log_of_one.append([said(number, 1, identity, "hello")])
        await log_of_one.abandon()
    room = await outbox.open_stream(own(4))
    await room.append([overlap(4, 1, "alice", "bob"), overlap(4, 2, "bob", "carol"), overlap(4, 3, "carol", "alice")])
    held = await claim(outbox.lanes)
    lane = next(each for each in held if each.stream == 4)
    for n in (1, 2):
        tried = (attempt(lane, n, at=EPOCH_MS)._replace(answer="who speaks over whom"),)
        dead = DeadLetter(n, 12, "status 500", n - 1)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, n, n, 0, tries=tried, dead=dead))
    async with looking(store) as log:
        purged = await log.purge.participant("alice")
    assert (purged.streams, purged.overlaps, purged.open_streams) == (1, 2, 0)
    assert [record.sequence for record in await outbox.history(stream_id(4))] == [2]
    assert [[row[1] for row in await rows(outbox, dead_letters)], len(await rows(outbox, answers))] == [[2], 1]
    with pytest.raises(Fenced):
        await outbox.lanes.settle(settled(lane, 3))
    (again,) = await claim(outbox.lanes)
    assert (again.stream, again.cursor) == (4, 2)  # what is left of the room's own events is still sent


async def test_a_dispatcher_that_reads_an_overlap_during_a_purge_settles_no_more_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    room = await outbox.open_stream(own(1))
    await room.append([overlap(1, 1, "alice", "bob")])
    await claim(outbox.lanes)
    knowing = list[Lane]()
    async with looking(store) as log:
        write = log.purge._commit.call

        async def call(run: Callable[[sa.Connection], object], **more: Any) -> object:
            done = await write(run, **more)
            for lane in await claim(outbox.lanes):
                if any(record.body for record in await outbox.lanes.read(lane.stream, lane.cursor, 10)):
                    knowing.append(lane)
            return done

        monkeypatch.setattr(log.purge._commit, "call", call)
        assert (await log.purge.participant("alice")).overlaps == 1
    for lane in knowing:
        with pytest.raises(Fenced):
            await outbox.lanes.settle(settled(lane, 1))
    store.clock.at += LEASE_MS
    (lane,) = await claim(outbox.lanes)
    assert [record.body for record in await outbox.lanes.read(lane.stream, lane.cursor, 10)] == [b""]


async def test_a_purge_that_is_interrupted_leaves_no_overlap_with_a_dispatcher(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    room = await outbox.open_stream(own(1))
    await room.append([overlap(1, 1, "alice", "bob")])
    lane = await the_lane(outbox.lanes)
    async with looking(store) as log:
        one_step = [log.purge._commit.call]
        monkeypatch.setattr(log.purge._commit, "call", lambda run, **more: one_step.pop()(run, **more))
        with suppress(IndexError):
            await log.purge.participant("alice")
    async with looking(store) as log:
        await log.purge.participant("alice")  # finds nothing that is left
    with pytest.raises(Fenced):
        await outbox.lanes.settle(settled(lane, 1))


async def test_what_names_the_participant_after_a_purge_goes_with_the_next_one(store: Store) -> None:
    outbox = await store.open()
    log_of_one = await outbox.open_stream(track(2, "alice"))
    await log_of_one.append([said(2, 1, "alice", "hello")])
    await log_of_one.abandon()
    room = await outbox.open_stream(own(3))
    await room.append([overlap(3, 1, "alice", "bob")])
    async with looking(store) as log:
        assert (await log.purge.participant("alice")).overlaps == 1
        await room.append([overlap(3, 2, "alice", "bob"), overlap(3, 3, "bob", "carol")])
        again = await log.purge.participant("alice")
        assert again == Purged(overlaps=1)
        assert again.found
    assert [record.sequence for record in await outbox.history(stream_id(3))] == [3]


async def test_a_room_is_purged_with_its_own_events_and_no_other_room(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "bi"])
    for number, room in ((1, "room"), (2, "lobby")):
        log_of_one = await outbox.open_stream(track(number, "alice", room))
        await log_of_one.append([said(number, 1, "alice", SECRET)])
        await log_of_one.abandon()
    of_room = await outbox.open_stream(own(3))
    await of_room.append([overlap(3, 1, "alice", "bob")])
    lane = next(each for each in await claim(outbox.lanes) if each.stream == 2)
    aside = Parking(1, 3, "status 500", 0, EPOCH_MS)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, parked=aside))
    async with looking(store) as log:
        purged = await log.purge.room("room")
    assert purged == Purged(streams=1, open_streams=1, events=2)
    assert [len(await outbox.history(stream_id(number))) for number in (1, 2, 3)] == [0, 1, 0]
    # what the relay tells of itself is no room's
    about = next(row for row in await rows(outbox, streams) if row[-1] == "crm")
    assert len(await outbox.history(str(about[1]))) == 1


async def test_a_purge_of_many_events_is_made_in_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "STEP", 7)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in range(1, 10):
        log_of_one = await outbox.open_stream(track(number, "alice"))
        await log_of_one.append([said(number, n, "alice", SECRET) for n in range(1, 24)])
        await log_of_one.abandon()
    async with looking(store) as log:
        steps = 0
        counted = log.purge._commit.call

        def call(run: object, **more: object) -> object:
            nonlocal steps
            steps += 1
            return counted(run, **more)  # type: ignore[arg-type]  # passed on as it came

        monkeypatch.setattr(log.purge._commit, "call", call)
        purged = await log.purge.participant("alice")
    assert (purged.streams, purged.events) == (9, 9 * 23)
    assert steps == 9 + 9 * 4 + 2


async def test_a_number_that_was_given_to_a_stream_is_not_given_to_another_one(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    alice = await outbox.open_stream(track(1, "alice"))
    await alice.append([said(1, 1, "alice", SECRET), ended(1, 2)])
    (before,) = await claim(outbox.lanes)
    async with looking(store) as log:
        await log.purge.participant("alice")
    bob = await outbox.open_stream(track(2, "bob"))
    await bob.append([said(2, 1, "bob", "hello")])
    (after,) = await claim(outbox.lanes)
    assert after.stream != before.stream
    assert after.id != before.id


async def test_what_is_left_of_a_stream_names_nobody_and_goes_with_the_retention(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    alice = await outbox.open_stream(track(1, "alice"))
    await alice.append([said(1, 1, "alice", SECRET), ended(1, 2)])
    store.clock.at += 2000
    async with looking(store) as log:
        await log.purge.participant("alice")
    await outbox.retention(1000).prune()
    (left,) = await rows(outbox, streams)
    assert left[2:6] == ("", "", "", "")
    store.clock.at += 1001
    await outbox.retention(1000).prune()
    assert [await rows(outbox, table) for table in (streams, lanes)] == [[], []]


async def test_the_words_are_nowhere_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "INTERIM_GRACE_MS", 0)
    async with sqlite(tmp_path) as store:
        outbox = await store.open()
        await outbox.lanes.sync_endpoints(["crm"])
        logs = [await outbox.open_stream(track(n, identity)) for n, identity in ((1, "alice"), (2, "bob"))]
        for n in range(1, 200):
            await logs[0].append([said(1, n, "alice", f"{SECRET} {n}")])
            await logs[1].append([said(2, n, "bob", f"bob says {n}")])
            store.clock.at += 1
        # what left the log by itself before left the file too
        fading = [interim(1, n, revision=n, text=f"{SECRET} perhaps") for n in range(200, 400)]
        await logs[0].append(fading)
        store.clock.at += 60_000
        await outbox.retention(10**9).prune()
        await logs[0].append([said(1, 400, "alice", SECRET)])
        assert in_files(tmp_path, SECRET) != []
        async with looking(store) as log:
            purged = await log.purge.participant("alice")
            assert (purged.events, purged.open_streams, purged.overwritten) == (200, 1, True)
        assert in_files(tmp_path, SECRET) == []
        assert in_files(tmp_path, "bob says 199") != []
        await logs[0].append([ended(1, 401)])
        async with looking(store) as log:
            await log.purge.participant("alice")
        assert in_files(tmp_path, '"identity":"alice"') == []
        assert in_files(tmp_path, "alice") == [], "a purged participant's identity is still in the files"
        assert len(await outbox.history(stream_id(2))) == 199


async def test_the_file_is_rewritten_for_pages_may_keep_copies_of_rows_that_were_moved(tmp_path: Path) -> None:
    async with sqlite(tmp_path) as store:
        outbox = await store.open()
        alice = await outbox.open_stream(track(1, "alice"))
        await alice.append([*(said(1, n, "alice", "x" * 3000) for n in range(1, 200)), ended(1, 200)])
        async with looking(store) as log:
            assert (await log.purge.participant("alice")).overwritten
        with closing(sqlite3.connect(tmp_path / "relay.db")) as reader:
            assert reader.execute("PRAGMA freelist_count").fetchone() == (0,)


async def test_a_large_file_is_rewritten_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.outbox.sqlite.database, "_REWRITTEN", 0)
    async with sqlite(tmp_path) as store:
        await store.open()
        async with looking(store) as log:
            assert not (await log.purge.room("room")).overwritten
            assert (await log.purge.room("room", rewrite=True)).overwritten


async def test_a_reader_that_keeps_the_bytes_is_told_of(tmp_path: Path) -> None:
    async with sqlite(tmp_path) as store:
        outbox = await store.open()
        alice = await outbox.open_stream(track(1, "alice"))
        await alice.append([said(1, 1, "alice", SECRET), ended(1, 2)])
        with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (2,)
            async with looking(store) as log:
                assert not (await log.purge.participant("alice")).overwritten
        async with looking(store) as log:
            assert (await log.purge.participant("alice")).overwritten
        assert in_files(tmp_path, SECRET) == []


async def test_a_transaction_that_may_still_see_what_was_deleted_is_told_of(postgres_server: PostgresServer) -> None:
    """The server keeps it for every transaction that began before, whatever that has read."""
    async with postgres(postgres_server) as store:
        outbox = await store.open()
        alice = await outbox.open_stream(track(1, "alice"))
        await alice.append([said(1, 1, "alice", SECRET), ended(1, 2)])
        with store.engine().begin() as elsewhere:
            elsewhere.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            elsewhere.exec_driver_sql("SELECT 1")
            async with looking(store) as log:
                assert not (await log.purge.participant("alice", rewrite=True)).overwritten
        async with looking(store) as log:
            assert (await log.purge.participant("alice", rewrite=True)).overwritten


async def test_a_user_who_may_not_rewrite_the_tables_is_told_so(postgres_server: PostgresServer) -> None:
    async with postgres(postgres_server) as store:
        await (await store.open()).aclose()
        store.execute("CREATE ROLE no_owner LOGIN")
        try:
            store.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO no_owner")
            store.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO no_owner")
            async with open_log(store.url.replace("relay@", "no_owner@"), store.clock) as log:
                assert not (await log.purge.room("room", rewrite=True)).overwritten
        finally:
            store.execute("DROP OWNED BY no_owner")
            store.execute("DROP ROLE no_owner")
