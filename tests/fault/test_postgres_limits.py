"""Limits in time that an operator has set for the database, the role or the server."""

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import closing

import psycopg
import pytest

from relay.errors import NameTaken
from relay.outbox.opening import attended, open_database
from relay.outbox.outbox import Outbox
from tests.support.outbox.outbox_situation import looking
from tests.support.outbox.outbox_store import Store, one_stream, postgres
from tests.support.outbox.postgres import PostgresServer

LIMITED = """
DECLARE
    found text := current_setting('statement_timeout');
BEGIN
    IF found <> '0' THEN
        RAISE EXCEPTION USING MESSAGE = found;
    END IF;
"""


@pytest.fixture
async def store(postgres_server: PostgresServer) -> AsyncIterator[Store]:
    """A database without any tables."""
    async with postgres(postgres_server, template="template1") as opened:
        yield opened


def limit(store: Store, setting: str, to: str) -> None:
    store.execute(f"ALTER DATABASE {store.url.partition('?')[0].rpartition('/')[2]} SET {setting} = '{to}'")


async def test_a_limit_for_idle_sessions_ends_none_that_listens_or_holds_a_name(store: Store) -> None:
    open_database(store.url).close()
    limit(store, "idle_session_timeout", "200ms")
    outbox = await store.open("agent-0", sole=True)
    with closing(outbox.listen(lambda _: None)):
        relays = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''"
        before = set(store.execute(relays))
        with psycopg.connect(store.url, autocommit=True) as idle:
            assert await asyncio.to_thread(select.select, [idle.fileno()], [], [], 60) != ([], [], []), (
                "it was not ended"
            )
        assert before <= set(store.execute(relays)), "they were idle for longer than the one that was ended"
        assert attended(store.url)
        with pytest.raises(NameTaken):
            await store.open("agent-0", sole=True)


async def test_a_limit_for_statements_does_not_hold_for_an_upgrade(store: Store) -> None:
    store.execute("CREATE SCHEMA elsewhere")
    ends = "RETURNS event_trigger LANGUAGE plpgsql AS"
    store.execute(f"CREATE FUNCTION elsewhere.unlimited() {ends} $${LIMITED} END $$")
    store.execute("CREATE EVENT TRIGGER unlimited ON ddl_command_end EXECUTE FUNCTION elsewhere.unlimited()")
    limit(store, "statement_timeout", "1h")
    await store.open()


async def test_a_limit_for_statements_holds_neither_for_a_purge_nor_for_a_copy(store: Store) -> None:
    await one_stream(store)
    store.execute("CREATE SCHEMA elsewhere")
    value = "RETURNS text IMMUTABLE LANGUAGE plpgsql AS"
    store.execute(f"CREATE FUNCTION elsewhere.unlimited(given text) {value} $${LIMITED} RETURN given; END $$")
    store.execute("CREATE INDEX ON identity (elsewhere.unlimited(id))")  # called where the table is rewritten
    limit(store, "statement_timeout", "1h")
    async with looking(store) as log:
        assert (await log.purge.room("room")).overwritten
    database = open_database(store.url)
    with database.connect_writer() as connection:
        with database.standstill(connection):
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "0"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "1h"
    database.close()


async def test_a_process_of_many_takes_as_many_sessions_as_the_first(store: Store) -> None:
    """Each agent's job takes the first free name: the thirtieth had opened the log thirty times before."""
    names = [f"agent-{seat}" for seat in range(8)]
    database = open_database(store.url)
    counted = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'speech-relay' AND datname = "
    for name in names[:-1]:
        database.reserve(name)
    assert store.execute(f"{counted} current_database()") == [(2,)], "one for the log, and one for all names"
    clock, first = store.clock, names[0]
    outbox = await Outbox.open(store.url, name=first, other_names=names[1:], clock=clock, sole=True)
    with pytest.raises(NameTaken):
        await Outbox.open(store.url, name=first, other_names=names[1:], clock=clock, sole=True)
    await outbox.aclose()
    database.close()
