"""A standby takes over from a primary that is lost, while producers append and a dispatcher sends."""

import asyncio
from collections.abc import Iterator

import pytest

from relay.app.orphans import close_orphans_once
from relay.clock import SystemClock
from relay.errors import Fenced
from relay.outbox.outbox import Outbox
from tests.fault.test_postgres_restart import delivering, lose_nothing
from tests.support.builders import durable, new_stream, run, stream_id
from tests.support.dispatch.receiver import Receiver
from tests.support.outbox.outbox_store import claim, settled, until, whole
from tests.support.outbox.postgres import PostgresServer, running_server

CLOCK = SystemClock()
LOST = range(2, 42)
"""More than the numbers that PostgreSQL has a standby pass over: 32."""
LATER = range(102, 142)


@pytest.fixture
def standby(durable_server: PostgresServer) -> Iterator[PostgresServer]:
    """Of the durable server."""
    with running_server(durable=True, primary=durable_server) as running:
        yield running


def of_both(primary: PostgresServer, standby: PostgresServer) -> str:
    return f"{primary.url(primary.create())}&host={standby.folder}&target_session_attrs=read-write"


def change(server: PostgresServer, setting: str) -> None:
    server.execute(f"ALTER SYSTEM SET {setting}")
    server.execute("SELECT pg_reload_conf()")


async def test_a_synchronous_standby_takes_over_without_a_loss(
    durable_server: PostgresServer, standby: PostgresServer, receiver: Receiver
) -> None:
    change(durable_server, "synchronous_standby_names = 'standby'")
    url = of_both(durable_server, standby)

    def fail_over() -> None:
        durable_server.stop()
        standby.promote()

    async with delivering(url, receiver) as outbox:
        await lose_nothing(outbox, receiver, url, fail_over)


async def test_what_an_asynchronous_standby_lacks_ends_its_streams_and_stops_nothing_else(
    durable_server: PostgresServer, standby: PostgresServer, receiver: Receiver
) -> None:
    url = of_both(durable_server, standby)
    async with delivering(url, receiver) as outbox:
        writer = await Outbox.open(url, name="writer", clock=CLOCK)
        log = await writer.open_stream(new_stream(1))
        await log.append(run(1, 1, 5))
        await receiver.wait(5)
        await outbox.lanes.sync_endpoints(["crm", "bi"])
        end = durable_server.execute("SELECT pg_current_wal_lsn()")[0][0]
        await until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{end}'") == [(True,)])
        change(standby, "primary_conninfo = ''")
        await until(lambda: durable_server.execute("SELECT count(*) FROM pg_stat_replication") == [(0,)])
        await log.append(run(1, 6, 8))
        lost = {number: await writer.open_stream(new_stream(number)) for number in LOST}
        await asyncio.gather(*(each.append([durable(number, 1)]) for number, each in lost.items()))
        held = await claim(writer.lanes, "bi", most=100)
        await receiver.wait(8 + len(LOST))
        await asyncio.to_thread(durable_server.stop)
        await asyncio.to_thread(standby.promote)

        other = await Outbox.open(url, name="other", clock=CLOCK)
        later = {number: await other.open_stream(new_stream(number)) for number in LATER}
        await asyncio.gather(*(each.append([durable(number, 1)]) for number, each in later.items()))
        await claim(other.lanes, "bi", most=100)
        numbers = [{each._stream for each in logs.values()} for logs in (lost, later)]
        assert numbers[0] & numbers[1], "numbers must be given again"
        for number, each in {1: log, **lost}.items():
            with pytest.raises(Fenced):
                await each.append([durable(number, each.last_sequence + 1)])
            await writer.give_up(each.id)
        for lane in held:
            with pytest.raises(Fenced):
                await writer.lanes.settle(settled(lane, 1))
        for number, each in later.items():
            await each.append([durable(number, 2)])
            await whole(outbox, each)
        await receiver.wait_for(lambda: {stream_id(each) for each in LATER} == at_their_second(receiver))
        async with asyncio.timeout(30):
            while stream_id(1) not in await outbox.orphans():  # processes could not renew their leases meanwhile
                pass
        await close_orphans_once(outbox, CLOCK)
        assert [(one.sequence, one.closes) for one in await outbox.history(log.id, after=5)] == [(6, True)]
        await receiver.wait_for(lambda: receiver.requests[-1].json()["type"] == "stream.ended")
        await other.aclose()
        await writer.aclose()


def at_their_second(receiver: Receiver) -> set[str]:
    """The later streams whose second event has come."""
    streams = [request.json()["stream"] for request in receiver.requests]
    later = {stream_id(each) for each in LATER}
    return {stream["id"] for stream in streams if stream["sequence"] == 2 and stream["id"] in later}
