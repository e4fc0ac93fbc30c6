"""Behind PgBouncer: sessions that it keeps are enough for the log; others are refused at the start."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from relay.cli.probes import probe_outbox
from relay.clock import SystemClock
from relay.config.models import OutboxConfig
from relay.errors import NameTaken, OutboxError
from relay.outbox.opening import attended, open_database
from relay.outbox.records import Settlement
from tests.support.builders import endpoint, new_stream, run, stream_id
from tests.support.dispatch.dispatching import delivering, per_stream
from tests.support.dispatch.receiver import Receiver
from tests.support.outbox.outbox_store import Store, postgres, settled, the_lane
from tests.support.outbox.pgbouncer import pgbouncer
from tests.support.outbox.postgres import PostgresServer

REFUSED = r"^outbox postgresql:\S+ the pooler in front of it keeps no sessions: set pool_mode = session"


@pytest.fixture
async def direct(postgres_server: PostgresServer) -> AsyncIterator[Store]:
    async with postgres(postgres_server) as opened:
        yield opened


def behind(store: Store, url: str) -> Store:
    """The same database, by another URL."""
    return Store(url, store._stack)


def name(store: Store) -> str:
    return store.url.rpartition("?")[0].rpartition("/")[2]


async def test_a_pooler_that_keeps_sessions_serves_the_whole_log(
    direct: Store, postgres_server: PostgresServer, receiver: Receiver
) -> None:
    with pgbouncer(postgres_server, "session") as pooler:
        store = behind(direct, pooler.url(name(direct)))
        store.clock = SystemClock()  # type: ignore[assignment]  # what is due is due
        outbox = await store.open("relay", sole=True)
        with pytest.raises(NameTaken):
            await store.open("relay", sole=True)
        await outbox.lanes.sync_endpoints(["crm"])
        first = await outbox.open_stream(new_stream(1))
        await first.append(run(1, 1, 3))
        lane = await the_lane(outbox.lanes)
        await outbox.lanes.settle(settled(lane, 1))
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, 2, 2, 0))
        await outbox.lanes.release([(lane.id, lane.fence)])
        async with delivering(outbox, endpoint(url=receiver.url)):
            assert await asyncio.to_thread(attended, store.url)
            await receiver.wait(1)
            producer = await store.open("producer")
            second = await producer.open_stream(new_stream(2))
            for sequence in (1, 2):
                await second.append(run(2, sequence, sequence))
            await receiver.wait(3)
        assert per_stream(receiver.requests) == {stream_id(1): [3], stream_id(2): [1, 2]}
        await producer.aclose()
        await outbox.aclose()


@pytest.mark.parametrize("pool_mode", ["transaction", "statement"])
async def test_a_pooler_that_keeps_no_sessions_is_refused_at_the_start(
    direct: Store, postgres_server: PostgresServer, pool_mode: str
) -> None:
    with pgbouncer(postgres_server, pool_mode) as pooler:
        store = behind(direct, pooler.url(name(direct)))
        with pytest.raises(OutboxError, match=REFUSED):
            await store.open()
        finding = await asyncio.to_thread(probe_outbox, OutboxConfig(url=store.url))
        assert finding.status == "failed"
        assert "pool_mode = session" in finding.detail
        with psycopg.connect(store.url, autocommit=True) as session:  # what was asked has changed nothing for others
            assert session.execute("SHOW lock_timeout").fetchone() == ("0",)


async def test_other_work_on_the_pooler_does_not_change_what_is_found(
    direct: Store, postgres_server: PostgresServer
) -> None:
    with pgbouncer(postgres_server, "transaction") as pooler:
        url = pooler.url(name(direct))
        busy = [asyncio.create_task(statements(url)) for _ in range(3)]
        try:
            with pytest.raises(OutboxError, match=REFUSED):
                await asyncio.to_thread(open_database, url)
        finally:
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)


async def statements(url: str) -> None:
    """Keep a server's session busy, and let it go, again and again."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None)
    async with connection:
        while True:
            await connection.execute("SELECT pg_sleep(0.002)")
