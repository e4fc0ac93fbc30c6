"""Two transactions at once in PostgreSQL: what one of them must see of the other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from relay.clock import SystemClock
from relay.errors import Fenced, OutboxError, StreamTaken
from relay.outbox.database import Database
from relay.outbox.log.streams import open_stream
from relay.outbox.opening import open_database
from relay.outbox.outbox import Outbox
from relay.outbox.records import EVERY_STREAM, Append, Lane, LanesWanted, record
from relay.outbox.schema import endpoints, lanes, streams
from tests.support.builders import durable, new_stream
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, one_stream, settled, the_lane


@pytest.fixture
def store(postgres_store: Store) -> Store:
    return postgres_store


@pytest.fixture
async def beside(store: Store) -> AsyncIterator[Database]:
    """Another process's way to the log, one statement at a time."""
    database = await asyncio.to_thread(open_database, store.url)
    yield database
    await asyncio.to_thread(database.close)


@contextmanager
def transaction(database: Database, *, alone: bool = False, opens: bool = False) -> Iterator[sa.Connection]:
    with database.connect_writer() as connection, database.transaction(connection, alone=alone, opens=opens):
        yield connection


async def held_up(store: Store, task: "asyncio.Task[object]") -> None:
    """Wait until the task's transaction waits for another one."""
    async with asyncio.timeout(30):
        while not store.execute("SELECT 1 FROM pg_locks WHERE NOT granted"):
            assert not task.done(), "it did not wait"
            await asyncio.sleep(0.01)


async def head(outbox: Outbox, stream: int) -> tuple[int, int]:
    """A stream's fence and last sequence."""
    found = sa.select(streams.c.writer_fence, streams.c.last_sequence).where(streams.c.sid == stream)
    fence, last = await outbox._reader.query(lambda connection: connection.execute(found).one())
    return fence, last


async def test_a_lane_released_during_an_append_is_due_afterwards(store: Store, beside: Database) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 3))
    fence, _ = await head(outbox, lane.stream)
    with transaction(beside) as connection:
        assert beside.append(connection, [Append(lane.stream, fence, [record(durable(1, 4))])], store.clock.now_ms())
        releasing = asyncio.create_task(outbox.lanes.release([(lane.id, lane.fence)]))
        await held_up(store, releasing)
    await releasing
    assert [one.cursor for one in await claim(outbox.lanes)] == [3], "it would be stuck until the next append"


async def test_a_settlement_that_the_network_held_back_takes_no_cursor_back(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 2))
    await outbox.lanes.settle(settled(lane, 1))  # its sender had given it up, and settled again on another connection
    store.clock.at += LEASE_MS
    assert (await the_lane(outbox.lanes)).cursor == 2, "an event that arrived would be sent again, behind later ones"


async def test_an_append_during_a_release_finds_the_lane_idle(store: Store, beside: Database) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1)])
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 1))
    with transaction(beside) as connection:
        beside.release(connection, [(lane.id, lane.fence)], store.clock.now_ms())
        appending = asyncio.ensure_future(log.append([durable(1, 2)]))
        await held_up(store, asyncio.create_task(asyncio.wait([appending])))
    await appending
    assert [one.cursor for one in await claim(outbox.lanes)] == [1]


async def test_lanes_that_another_dispatcher_is_claiming_are_passed_over(store: Store, beside: Database) -> None:
    outbox = await one_stream(store, "crm", "bi")
    with transaction(beside) as connection:
        connection.execute(sa.select(lanes).where(lanes.c.endpoint == "crm").with_for_update()).all()
        async with asyncio.timeout(30):
            claimed = await claim(outbox.lanes, "crm", "bi")
    assert [lane.endpoint for lane in claimed] == ["bi"]
    assert [lane.endpoint for lane in await claim(outbox.lanes, "crm", "bi")] == ["crm"]


async def test_two_dispatchers_share_the_lanes_and_none_has_one_twice(store: Store) -> None:
    first, second = await store.open("a"), await store.open("b")
    await first.lanes.sync_endpoints(["crm"])
    for number in range(1, 41):
        await (await first.open_stream(new_stream(number))).append([durable(number, 1)])
    claims = [outbox.lanes.claim({"crm": 5}, lease_ms=LEASE_MS) for outbox in (first, second) * 6]
    claimed = [lane.id for part in await asyncio.gather(*claims) for lane in part]
    claimed += [lane.id for lane in await claim(first.lanes, most=40)]
    assert sorted(claimed) == sorted(set(claimed))
    assert len(claimed) == 40


async def test_what_is_alone_waits_for_those_that_run_beside_others(store: Store, beside: Database) -> None:
    outbox = await store.open()
    with transaction(beside):
        syncing = asyncio.create_task(outbox.lanes.sync_endpoints(["crm"]))
        await held_up(store, syncing)
    await syncing
    assert set(await outbox.lanes.endpoint_states()) == {"crm"}


async def test_a_stream_opens_beside_what_runs_beside_others(store: Store, beside: Database) -> None:
    outbox = await store.open()
    with transaction(beside):
        async with asyncio.timeout(30):
            log = await outbox.open_stream(new_stream())
            await log.append([durable(1, 1)])


async def test_a_stream_opened_while_endpoints_change_has_their_lanes(store: Store, beside: Database) -> None:
    outbox = await store.open()
    with transaction(beside, alone=True) as connection:
        opening = asyncio.create_task(outbox.open_stream(new_stream()))
        await held_up(store, opening)
        connection.execute(sa.insert(endpoints), [{"name": "crm", "active": True}])
    await opening
    assert [lane.endpoint for lane in await claim(outbox.lanes)] == []
    assert store.execute("SELECT endpoint FROM lanes") == [("crm",)]


async def test_streams_are_numbered_in_the_order_in_which_they_appear(store: Store, beside: Database) -> None:
    """Who has seen a stream looks for those with higher numbers only."""
    outbox = await store.open()
    with transaction(beside, opens=True) as connection:
        first = open_stream(connection, new_stream(1), "another", store.clock.now_ms())
        opening = asyncio.create_task(outbox.open_stream(new_stream(2)))
        await held_up(store, opening)
        assert store.execute("SELECT sid FROM streams") == []
    await opening
    ((newest,),) = store.execute("SELECT max(sid) FROM streams")
    assert isinstance(newest, int)
    assert newest > first.stream


async def test_a_track_that_is_being_opened_is_taken(store: Store, beside: Database) -> None:
    outbox = await store.open()
    with transaction(beside, opens=True) as connection:
        open_stream(connection, new_stream(), "another", store.clock.now_ms())
        opening = asyncio.create_task(outbox.open_stream(new_stream()))
        await held_up(store, opening)
    with pytest.raises(StreamTaken):
        await opening


async def test_those_that_run_beside_others_wait_for_what_is_alone(store: Store, beside: Database) -> None:
    outbox = await one_stream(store)
    with transaction(beside, alone=True):
        claiming = asyncio.create_task(claim(outbox.lanes))
        await held_up(store, claiming)
    assert len(await claiming) == 1


async def test_an_append_sees_what_was_alone_before_it(store: Store, beside: Database) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    with transaction(beside, alone=True) as connection:
        appending = asyncio.ensure_future(log.append([durable(1, 1)]))
        await held_up(store, asyncio.create_task(asyncio.wait([appending])))
        connection.execute(sa.update(streams).values(writer_fence=streams.c.writer_fence + 1))
    with pytest.raises(Fenced):
        await appending


async def test_a_settlement_sees_what_was_alone_before_it(store: Store, beside: Database) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    with transaction(beside, alone=True) as connection:
        settling = asyncio.ensure_future(outbox.lanes.settle(settled(lane, 1)))
        await held_up(store, asyncio.create_task(asyncio.wait([settling])))
        connection.execute(sa.update(lanes).values(fence=lanes.c.fence + 1))
    with pytest.raises(Fenced):
        await settling


async def test_transactions_that_wait_for_one_another_both_end(store: Store, beside: Database) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    logs = [await outbox.open_stream(new_stream(number)) for number in (1, 2)]
    first, second = [
        sa.select(streams).where(streams.c.id == new_stream(number).id).with_for_update() for number in (1, 2)
    ]
    with suppress(sa.exc.OperationalError), transaction(beside) as connection:  # or the other one is undone
        connection.execute(second).all()
        appending = [asyncio.ensure_future(log.append([durable(n, 1)])) for n, log in enumerate(logs, 1)]
        await held_up(store, asyncio.create_task(asyncio.wait(appending)))
        await asyncio.to_thread(connection.execute, first)
    await asyncio.gather(*appending)
    assert [log.last_sequence for log in logs] == [1, 1]


async def test_a_process_stopped_in_a_transaction_holds_others_up_for_seconds_only(
    store: Store, beside: Database
) -> None:
    outbox = await one_stream(store)
    claimed: list[Lane] = []
    with suppress(sa.exc.DBAPIError), transaction(beside, alone=True):  # the server ends it
        async with asyncio.timeout(30):
            while not claimed:
                with suppress(OutboxError):  # it was waited for long enough
                    claimed = await claim(outbox.lanes)
    assert len(claimed) == 1


async def test_pruning_does_not_wait_for_the_transactions_of_others(store: Store, beside: Database) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 3))
    store.clock.at += 2
    with transaction(beside):
        async with asyncio.timeout(30):
            await outbox.retention(1).prune()
    assert store.execute("SELECT count(*) FROM events") == [(0,)]


async def test_appends_settlements_rings_reads_and_claims_are_one_round_trip_each(
    store: Store, beside: Database, tmp_path: Path
) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    fence, _ = await head(outbox, lane.stream)
    with beside.connect_writer() as connection, (tmp_path / "wire").open("w") as wire:
        bell, libpq = beside.bell(connection), connection.connection.driver_connection.pgconn  # type: ignore[union-attr]

        def once(sequence: int) -> None:
            append = Append(lane.stream, fence, [record(durable(1, sequence))])
            with beside.turn(connection):
                assert beside.append(connection, [append], store.clock.now_ms())
            with beside.turn(connection):
                assert beside.settle(connection, [settled(lane, sequence)], store.clock.now_ms())
            bell.ring({lane.stream: []})
            (found,) = beside.read(connection, [(lane.stream, sequence - 1, 10)])
            assert [one.sequence for one in found] == [sequence]
            with beside.turn(connection):
                assert not beside.claim(connection, [LanesWanted("crm", 1, EVERY_STREAM)], "beside", 1, 2)

        once(4)  # prepares them
        libpq.trace(wire.fileno())
        once(5)
        libpq.untrace()
    said = (tmp_path / "wire").read_text()
    assert said.count("ReadyForQuery") == 5, said


@pytest.mark.parametrize("events", [1, 2])
async def test_a_dispatcher_whose_clock_is_behind_claims_what_was_just_appended(
    store: Store, beside: Database, events: int
) -> None:
    """Its clock and the producer's differ by what reading the server's clock takes."""
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 3))
    await outbox.lanes.release([(lane.id, lane.fence)])
    fence, last = await head(outbox, lane.stream)
    append = Append(lane.stream, fence, [record(durable(1, last + number)) for number in range(1, events + 1)])
    now = store.clock.now_ms()
    with beside.connect_writer() as connection:
        assert beside.append(connection, [append], now)
        (claimed,) = beside.claim(connection, [LanesWanted("crm", 1, EVERY_STREAM)], "beside", now - 50, now + 1000)
    assert claimed.id == lane.id


async def test_an_append_finds_its_statement_forgotten_and_succeeds(store: Store, beside: Database) -> None:
    """As by the driver, when a transaction was rolled back."""
    outbox = await one_stream(store)
    stream = (await the_lane(outbox.lanes)).stream
    fence, last = await head(outbox, stream)
    with beside.connect_writer() as connection:
        for sequence in (last + 1, last + 2):
            append = Append(stream, fence, [record(durable(1, sequence))])
            assert beside.append(connection, [append], store.clock.now_ms())
            connection.exec_driver_sql("DEALLOCATE ALL")
            connection.commit()
    assert store.execute("SELECT max(sequence) FROM events") == [(last + 2,)]


async def test_an_append_in_a_transaction_needs_no_prepared_statement(store: Store, beside: Database) -> None:
    outbox = await one_stream(store)
    stream = (await the_lane(outbox.lanes)).stream
    fence, last = await head(outbox, stream)
    with beside.connect_writer() as connection:
        for sequence in (last + 1, last + 2):
            append = Append(stream, fence, [record(durable(1, sequence))])
            with beside.transaction(connection, alone=False):
                connection.exec_driver_sql("DEALLOCATE ALL")
                assert beside.append(connection, [append], store.clock.now_ms())
    assert store.execute("SELECT max(sequence) FROM events") == [(last + 2,)]


async def test_a_process_that_appends_takes_one_connection(store: Store) -> None:
    """A fleet has a process for each room: connections are what its server runs out of first."""
    outbox = await one_stream(store)
    await outbox.identity()
    assert not await outbox.was_heard("TR_other")
    mine = store.execute(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    assert mine == [(1,)]


class SetClock(SystemClock):
    """The clock of a host on which it is wrong."""

    def __init__(self, by_ms: int) -> None:
        self._by_ms = by_ms

    def now_ms(self) -> int:
        return super().now_ms() + self._by_ms


@pytest.mark.parametrize("by_ms", [3_600_000, -3_600_000])
async def test_a_host_with_a_wrong_clock_leases_lanes_as_the_others_do(store: Store, by_ms: int) -> None:
    right = await Outbox.open(store.url, name="right", clock=SystemClock(), lease_ms=60_000)
    wrong = await Outbox.open(store.url, name="wrong", clock=SetClock(by_ms), lease_ms=60_000)
    await right.lanes.sync_endpoints(["crm"])
    for number in (1, 2):
        log = await wrong.open_stream(new_stream(number))
        await log.append([durable(number, 1)])
    (first,) = await right.lanes.claim({"crm": 1}, lease_ms=LEASE_MS)
    (second,) = await wrong.lanes.claim({"crm": 2}, lease_ms=LEASE_MS)
    assert first.stream != second.stream
    assert abs(first.lease_until - second.lease_until) < LEASE_MS
    assert await claim(right.lanes) == []
    assert await right.orphans() == []  # the lease of the host's streams, too
    await wrong.aclose()
    await right.aclose()
