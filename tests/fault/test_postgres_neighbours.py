"""Another role of the same server, which may create things in the log's schema, as every role may in PostgreSQL 14."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

import psycopg
import pytest

from relay.cli.probes import probe
from relay.config.models import Config
from relay.errors import OutboxError
from relay.outbox.opening import open_database
from relay.outbox.postgres.roles import is_readable_on_the_way
from tests.support.builders import durable, new_stream
from tests.support.outbox.outbox_store import Store, one_stream, postgres, settled, the_lane, whole
from tests.support.outbox.postgres import PostgresServer

_NUMBERS = count(1)


@pytest.fixture
def neighbour(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a role without rights, which is dropped after the databases in which it owns something."""
    name = f"neighbour_{next(_NUMBERS)}"
    postgres_server.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    postgres_server.execute(f"DROP ROLE {name}")


@pytest.fixture
async def store(postgres_server: PostgresServer, neighbour: str) -> AsyncIterator[Store]:
    async with postgres(postgres_server) as opened:
        opened.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        yield opened


@pytest.fixture
async def empty_store(postgres_server: PostgresServer, neighbour: str) -> AsyncIterator[Store]:
    """A database without any tables."""
    async with postgres(postgres_server, template="template1") as opened:
        opened.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        yield opened


def execute_as(role: str, store: Store, *statements: str) -> None:
    with psycopg.connect(store.url.replace("//relay@", f"//{role}@"), autocommit=True) as session:
        for statement in statements:
            session.execute(statement)


def raising(signature: str, returns: str) -> str:
    """A function that fails whoever calls it."""
    body = "BEGIN RAISE EXCEPTION 'called by %', current_user; END"
    return f"CREATE FUNCTION public.{signature} RETURNS {returns} LANGUAGE plpgsql AS $${body}$$"


@pytest.mark.parametrize(
    "overload",
    [
        raising("append_events(text, text, bigint)", "boolean"),
        raising(f"append_event({'bigint, ' * 4}{'text, ' * 4}{'bigint, ' * 3}boolean, text)", "boolean"),
        raising("settle_lanes(text, text, bigint)", "boolean"),
        raising("claim_lanes(text, text, bigint, bigint, bigint)", "TABLE (n integer)"),
        raising("read_events(text)", "TABLE (n integer)"),
        raising("convert_to(text, text)", "bytea"),
        raising("pg_get_serial_sequence(text, name)", "text"),
        raising("unnest(text[])", "SETOF text"),
    ],
)
async def test_an_overload_that_another_role_adds_is_not_called(store: Store, neighbour: str, overload: str) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    execute_as(neighbour, store, overload)  # before the session has a plan of any function
    await log.append([durable(1, 1), durable(1, 2)])
    await log.append([durable(1, 3)])
    await whole(outbox, log)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 1))
    assert [one.sequence for one in await outbox.lanes.read(lane.stream, 1, 9)]
    (sequence,) = {name for (name,) in store.execute("SELECT max(sid) FROM streams")}
    database = outbox._database
    with database.connect_reader() as connection:
        assert database.last_numbers(connection)["streams"] == sequence


async def test_operators_of_other_schemas_in_the_search_path_are_not_used(empty_store: Store, neighbour: str) -> None:
    store = empty_store
    store.execute("CREATE SCHEMA log")
    own = Store(f"{store.url}&options=-csearch_path%3Dlog,public", store._stack)
    execute_as(
        neighbour,
        store,
        raising("misled(text, varchar)", "boolean"),
        "CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = varchar, FUNCTION = public.misled)",
    )
    outbox = await one_stream(own)
    assert (await the_lane(outbox.lanes)).endpoint == "crm"
    assert store.execute("SELECT count(*) FROM log.events") == [(3,)]


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("CREATE TABLE public.alembic_version (version_num varchar(32) PRIMARY KEY)", r"table 'alembic_version'"),
        ("CREATE VIEW public.events AS SELECT 1", r"table 'events'"),
        (raising("append_events(json, json, bigint)", "boolean"), r"function 'append_events\(json,json,bigint\)'"),
        (raising("lower(varchar)", "text"), r"function \S*lower\(character varying\)'"),
    ],
)
async def test_a_log_with_something_of_another_role_is_refused(
    empty_store: Store, neighbour: str, made: str, named: str
) -> None:
    execute_as(neighbour, empty_store, made)
    said = rf"^outbox \S+: the {named} in the schema 'public' belongs to the role '{neighbour}', .*: drop it, or .*$"
    with pytest.raises(OutboxError, match=said):
        await asyncio.to_thread(open_database, empty_store.url)


async def test_tables_of_the_owner_of_the_database_are_the_logs(
    store: Store, neighbour: str, postgres_server: PostgresServer
) -> None:
    """Someone with more rights may run `migrate` for the relay."""
    name = store.url.rpartition("?")[0].rpartition("/")[2]
    store.execute(f"ALTER TABLE events OWNER TO {neighbour}")
    with pytest.raises(OutboxError, match="belongs to the role"):
        await store.open()
    postgres_server.execute(f"ALTER DATABASE {name} OWNER TO {neighbour}")
    await one_stream(store)


async def test_an_upgrade_leaves_the_tables_of_others_alone(empty_store: Store, neighbour: str) -> None:
    empty_store.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    execute_as(neighbour, empty_store, 'CREATE TABLE public.theirs ("a TYPE int; --" text, b text)')
    await empty_store.open()
    collation = "SELECT DISTINCT attcollation::regcollation::text FROM pg_attribute WHERE attrelid = {}::regclass "
    collation += "AND atttypid = 'text'::regtype"
    assert empty_store.execute(collation.format("'theirs'")) == [('"default"',)]
    assert empty_store.execute(collation.format("'events'")) == [('"C"',)]


async def warnings(store: Store) -> list[str]:
    """What ``check`` warns of, about the log."""
    config = Config.model_validate({"outbox": {"url": store.url}})
    found = [each for each in await probe(config, {}, offline=False, role="dispatch") if each.subject == "outbox"]
    assert found[0].status == "ok"
    assert {each.status for each in found[1:]} <= {"warning"}
    return [each.detail for each in found[1:]]


async def test_each_warning_of_check_is_gone_once_its_cure_was_executed(store: Store, neighbour: str) -> None:
    store.execute(f"GRANT CREATE ON SCHEMA public TO {neighbour}")
    warned = []
    while found := await warnings(store):
        why, _, cure = found[0].partition(": ")
        assert why not in warned
        warned.append(why)
        store.execute(cure)
    assert warned == [
        "every role may create functions that run as the relay",
        f"the role {neighbour} may create functions that run as the relay",
        "every role may connect to the database, and stop appends by taking the log's lock",
    ]
    with pytest.raises(psycopg.errors.OperationalError, match="permission denied for database"):
        execute_as(neighbour, store)
    open_database(store.url).close()


@pytest.mark.parametrize(
    ("address", "sslmode", "readable"),
    [
        ("", "", False),
        ("127.0.0.1", "", False),
        ("::1", "prefer", False),
        ("192.0.2.1", "", True),
        ("2001:db8::1", "prefer", True),
        ("192.0.2.1", "require", False),
        ("192.0.2.1", "verify-full", False),
    ],
)
def test_a_server_beyond_this_machine_needs_tls(address: str, sslmode: str, readable: bool) -> None:
    assert is_readable_on_the_way(address, sslmode) is readable
