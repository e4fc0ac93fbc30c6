"""The tables come from the migrations alone, on any number of processes' first open."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from relay.errors import OutboxError
from relay.outbox import schema
from relay.outbox.upgrade import MIGRATIONS
from tests.support.outbox_process import Child
from tests.support.outbox_store import Store, new_stream, sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite(tmp_path) as opened:
        yield opened


def test_the_newest_migration_is_the_one_that_this_version_asks_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


async def test_the_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    outbox = await store.open()

    def differences(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), schema.METADATA))

    assert await outbox._reader.query(differences) == []
    migrated = await outbox._reader.query(partial_indexes)
    with sa.create_engine("sqlite://").begin() as connection:
        schema.METADATA.create_all(connection)
        assert partial_indexes(connection) == migrated


def partial_indexes(connection: sa.Connection) -> set[str]:
    """What a comparison by Alembic leaves out: the conditions of the indexes."""
    indexes = connection.execute(sa.text("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '%WHERE%'"))
    return {" ".join(sql.split()) for sql in indexes.scalars()}


async def test_a_database_of_a_newer_version_is_refused(store: Store, tmp_path: Path) -> None:
    outbox = await store.open()
    await outbox.aclose()
    with sqlite3.connect(tmp_path / "relay.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(OutboxError, match=r"relay\.db was written by a newer version .* upgrade"):
        await store.open()


async def test_the_database_of_something_else_is_refused_and_left_alone(store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "relay.db") as connection:
        connection.execute("CREATE TABLE customers (name)")
    connection.close()
    with pytest.raises(OutboxError, match=r"relay\.db is the database of something else"):
        await store.open()
    with sqlite3.connect(tmp_path / "relay.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]
    connection.close()


async def test_processes_that_open_a_new_database_at_once_do_not_trip_over_one_another(store: Store) -> None:
    async with Child("open-streams", store.url, "1") as first, Child("open-streams", store.url, "2") as second:
        children = (first, second)
        for child in children:
            await child.line()  # imported, and about to open
        for child in children:
            child.go()
        assert [await child.line() for child in children] == ["opened", "opened"]
    outbox = await store.open()
    assert sorted(await outbox.orphans()) == [new_stream(1).id, new_stream(2).id]
