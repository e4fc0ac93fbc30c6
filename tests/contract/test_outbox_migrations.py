"""The tables come from the migrations alone, on any number of processes' first open."""

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from relay.errors import OutboxError
from relay.outbox import schema
from relay.outbox.opening import require_usable
from relay.outbox.postgres.functions import FUNCTIONS
from relay.outbox.records import DeadLetter, EndpointState, Settlement
from relay.outbox.upgrade import MIGRATIONS
from tests.support.builders import EPOCH_MS, durable, new_stream, run, stream_id
from tests.support.outbox.outbox_process import Child
from tests.support.outbox.outbox_store import Store, parking, rows, settled, the_lane


def test_the_newest_migration_is_the_one_that_this_version_asks_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


def test_postgres_functions_change_with_a_migration_only() -> None:
    found = schema.REVISION, sha256("".join(FUNCTIONS.values()).encode()).hexdigest()[:12]
    assert found == ("0015", "43997acca88b"), (
        "a log in PostgreSQL keeps its functions until a migration: add one, an empty one will do, and write both here"
    )


async def test_the_migrations_make_the_tables_of_the_schema(empty_store: Store) -> None:
    outbox = await empty_store.open()

    def differences(connection: sa.Connection) -> list[object]:
        found = compare_metadata(MigrationContext.configure(connection), schema.METADATA)
        # comments are for readers of the schema, and SQLite has none
        return [each for each in found if not (isinstance(each, list) and each[0][0] == "modify_comment")]

    assert await outbox._reader.query(differences) == []
    migrated = await outbox._reader.query(partial_indexes)
    engine = sa.create_engine("sqlite://", poolclass=sa.NullPool)
    if empty_store.kind == "postgresql":
        engine = empty_store.engine()
    with engine.begin() as connection:
        if empty_store.kind == "postgresql":
            connection.exec_driver_sql("CREATE SCHEMA anew")
            connection.exec_driver_sql("SET LOCAL search_path TO anew")
        schema.METADATA.create_all(connection)
        assert partial_indexes(connection) == migrated
    engine.dispose()


def partial_indexes(connection: sa.Connection) -> set[str]:
    """What a comparison by Alembic leaves out: the conditions of the indexes."""
    found = "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '%WHERE%'"
    if connection.dialect.name == "postgresql":
        found = (
            "SELECT replace(indexdef, schemaname || '.', '') FROM pg_indexes WHERE schemaname = current_schema() "
            "AND indexdef LIKE '%WHERE%'"
        )
    return {" ".join(sql.split()) for sql in connection.execute(sa.text(found)).scalars()}


async def test_creating_the_tables_adds_no_line_to_an_agent_s_log(
    empty_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.INFO, "alembic")
    await empty_store.open()
    assert [record.getMessage() for record in caplog.records] == []
    assert logging.getLogger("alembic").level == logging.INFO, "the agent may use Alembic, too"


def test_a_process_that_logs_everything_reads_nothing_of_its_first_migration(tmp_path: Path) -> None:
    """Alembic logs as it is imported, too, which a process does once."""
    program = """
import asyncio, logging, sys
logging.basicConfig(level=logging.INFO)
from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
async def make():
    await (await Outbox.open(sys.argv[1], name="agent", clock=SystemClock())).aclose()
asyncio.run(make())
"""
    arguments = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/relay.db"]
    made = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


@pytest.mark.parametrize("either_store", ["postgres"], indirect=True)
async def test_names_sort_in_postgresql_as_they_do_in_python(store: Store) -> None:
    await store.open()
    texts = store.execute(
        "SELECT attcollation::regcollation::text, count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND atttypid = 'text'::regtype GROUP BY 1"
    )
    assert [collation for collation, _ in texts] == ['"C"']


async def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    outbox = await store.open()
    await outbox.aclose()
    store.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(OutboxError, match=r"outbox \S+ was written by a newer version .* upgrade"):
        await store.open()


async def test_what_a_running_process_starts_takes_newer_tables_as_they_are(store: Store) -> None:
    """A worker goes on while the tables are upgraded, and starts a process for each further room."""
    await (await store.open()).aclose()
    store.execute("UPDATE alembic_version SET version_num = '9999'")
    if store.kind == "postgresql":
        store.execute("DROP FUNCTION read_events")
    outbox = await store.open(or_newer=True)
    await (await outbox.open_stream(new_stream())).append(run(1, 1, 2))
    assert store.execute("SELECT version_num FROM alembic_version") == [("9999",)]
    if store.kind == "postgresql":
        assert store.execute("SELECT count(*) FROM pg_proc WHERE proname = 'read_events'") == [(0,)]
    for refused in ("9999 unfinished", "something"):
        store.execute(f"UPDATE alembic_version SET version_num = '{refused}'")
        with pytest.raises(OutboxError, match="written by a newer version"):
            await store.open(or_newer=True)


async def test_the_database_of_something_else_is_refused_and_left_alone(empty_store: Store) -> None:
    empty_store.execute("CREATE TABLE customers (name text)")
    with pytest.raises(OutboxError, match=r"outbox \S+ is the database of something else"):
        await empty_store.open()
    assert empty_store.execute(
        "SELECT name FROM sqlite_master"
        if empty_store.kind == "sqlite"
        else "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    ) == [("customers",)]


async def test_processes_that_open_a_new_database_at_once_do_not_trip_over_one_another(empty_store: Store) -> None:
    url = empty_store.url
    async with (
        Child("open-streams", url, "1") as first,
        Child("open-streams", url, "2") as second,
    ):
        children = (first, second)
        for child in children:
            await child.line()  # imported, and about to open
        for child in children:
            child.go()
        assert [await child.line() for child in children] == ["opened", "opened"]
    outbox = await empty_store.open()
    assert sorted(await outbox.orphans()) == [new_stream(1).id, new_stream(2).id]


@pytest.mark.parametrize("either_store", ["postgres"], indirect=True)
async def test_processes_that_upgrade_a_log_at_once_find_its_functions(store: Store) -> None:
    outbox = await store.open()
    await outbox.aclose()
    store.execute("UPDATE alembic_version SET version_num = '0010'")
    store.execute("DROP INDEX lanes_of_endpoint")
    for function in ("append_events", "append_event", "settle_lanes", "claim_lanes", "read_events"):
        store.execute(f"DROP FUNCTION {function}")
    async with AsyncExitStack() as stack:
        children = [await stack.enter_async_context(Child("open-streams", store.url, str(n))) for n in (1, 2, 3)]
        for child in children:
            await child.line()  # imported, and about to open
        for child in children:
            child.go()
        assert [await child.line() for child in children] == ["opened"] * 3
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream(4))
    await log.append(run(4, 1, 2))
    assert [one.sequence for one in await outbox.lanes.read(log._stream, 0, 10)] == [1, 2]
    room = store.execute("SELECT reloptions FROM pg_class WHERE relname IN ('lanes', 'streams')")
    assert ["fillfactor=70" in str(options) for (options,) in room] == [True, True]


OF_0001 = {
    "endpoints": {"name": "crm", "active": True},
    "streams": {
        "sid": 1,
        "id": stream_id(1),
        "room_sid": "RM_1",
        "room": "room",
        "track_sid": "TR_1",
        "participant": "alice",
        "last_sequence": 3,
        "writer": "gone",
        "writer_fence": 1,
        "opened_at": EPOCH_MS,
    },
    "lanes": {
        "lane": 1,
        "endpoint": "crm",
        "sid": 1,
        "cursor": 1,
        "last_sent": 1,
        "attempts": 2,
        "next_at": EPOCH_MS,
        "fence": 4,
        "settled_at": EPOCH_MS,
    },
    "attempts": {"lane": 1, "sequence": 2, "number": 2, "at": EPOCH_MS, "stage": "connect", "elapsed_ms": 1.0},
    "dead_letters": {"lane": 1, "sequence": 1, "attempts": 12, "reason": "status 500", "at": EPOCH_MS},
}


@pytest.mark.parametrize("empty_store", ["sqlite"], indirect=True)
async def test_a_database_of_the_first_version_is_upgraded_with_all_that_is_in_it(
    empty_store: Store, tmp_path: Path
) -> None:
    make_0001(tmp_path / "relay.db")
    outbox = await empty_store.open()
    assert await outbox.lanes.endpoint_states() == {"crm": EndpointState("crm", active=True)}
    assert await rows(outbox, schema.dead_letters) == [(1, 1, 12, "status 500", EPOCH_MS, 0)]
    lane = await the_lane(outbox.lanes)
    assert (lane.cursor, lane.attempts, lane.fence, lane.failing_since) == (1, 2, 5, None)
    assert [one.sequence for one in await outbox.lanes.read(1, 1, 9)] == [2, 3]

    await outbox.lanes.settle(parking(lane, retry_at=EPOCH_MS))
    (aside,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=1)
    assert aside.record.id == run(1, 2, 2)[0].id
    dead = DeadLetter(3, 1, "status 404", 2)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 3, 3, 0, dead=dead))
    log = await outbox.take_over(stream_id(1))
    await log.append([durable(1, 4)])
    await outbox.lanes.settle(settled(lane, 4))
    await outbox.lanes.sync_endpoints(["crm", "other"])
    assert await outbox.lanes.disable("crm", "operator")


@pytest.mark.parametrize("empty_store", ["sqlite"], indirect=True)
async def test_what_an_earlier_version_parked_in_an_outage_is_due_in_stream_order(
    empty_store: Store, tmp_path: Path
) -> None:
    hour = 3_600_000
    aside = {"lane": 1, "endpoint": "crm", "reason": "connect", "parked_at": EPOCH_MS - 5, "next_at": EPOCH_MS + hour}
    rows_of_parked = [
        aside | {"sequence": 1, "previous": 0, "attempts": 5, "fence": 2},
        aside | {"sequence": 2, "previous": 1, "attempts": 4, "fence": 0},
    ]
    make(tmp_path / "relay.db", "0003", {"cursor": 2, "last_sent": 2, "next_at": EPOCH_MS + hour}, rows_of_parked)
    outbox = await empty_store.open()
    assert await rows(outbox, schema.parked) == []
    lane = await the_lane(outbox.lanes)
    assert (lane.cursor, lane.last_sent, lane.attempts, lane.failing_since) == (0, 0, 5, EPOCH_MS - 5)


@pytest.mark.parametrize("empty_store", ["sqlite"], indirect=True)
async def test_what_an_earlier_version_parked_is_due_where_its_stream_went_on(
    empty_store: Store, tmp_path: Path
) -> None:
    aside = {"lane": 1, "sequence": 1, "previous": 0, "endpoint": "crm", "reason": "connect", "attempts": 5, "fence": 0}
    later = {"parked_at": EPOCH_MS - 5, "next_at": EPOCH_MS + 3_600_000}
    make(tmp_path / "relay.db", "0003", {"cursor": 2, "last_sent": 2, "attempts": 0}, [aside | later])
    outbox = await empty_store.open()
    (due,) = await outbox.lanes.claim_parked({"crm": 5}, lease_ms=1)
    assert (due.record.sequence, due.previous) == (1, 0)
    assert (await the_lane(outbox.lanes)).cursor == 2


def make_0001(path: Path) -> None:
    make(path, "0001", {}, [])


def make(path: Path, version: str, lane: Mapping[str, object], parked: Sequence[Mapping[str, object]]) -> None:
    """A database as an earlier version left it."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, version)
        tables = sa.MetaData()
        tables.reflect(connection)
        for name, row in OF_0001.items():
            connection.execute(sa.insert(tables.tables[name]).values({**row, **(lane if name == "lanes" else {})}))
        for one in parked:
            connection.execute(sa.insert(tables.tables["parked"]).values(one))
        for event in run(1, 1, 3):
            logged = {
                "sid": 1,
                "sequence": event.stream.sequence,
                "id": event.id,
                "type": event.type,
                "delivery": event.delivery.value,
                "emitted_at": EPOCH_MS,
                "closes": False,
                "body": event.model_dump_json().encode(),
            }
            connection.execute(sa.insert(tables.tables["events"]).values(logged))


@pytest.mark.parametrize("statement", ["DELETE FROM alembic_version", "INSERT INTO alembic_version VALUES ('0001')"])
async def test_a_log_without_one_version_is_refused_with_a_cure(store: Store, statement: str) -> None:
    await (await store.open()).aclose()
    store.execute(statement)
    count = "no" if "DELETE" in statement else "2"
    why = f"table alembic_version has {count} rows instead of one.*: restore a backup, or .*'{schema.REVISION}'"
    with pytest.raises(OutboxError, match=why):
        await store.open()
    with pytest.raises(OutboxError, match=why):
        require_usable(store.url)
    store.execute("DELETE FROM alembic_version")
    store.execute(f"INSERT INTO alembic_version VALUES ('{schema.REVISION}')")
    await store.open()
