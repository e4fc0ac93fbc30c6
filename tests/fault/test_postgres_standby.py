"""A standby takes over from a primary that is lost, while producers append and a dispatcher sends."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from relay.app.orphans import close_orphans_once
from relay.cli.probes import probe_outbox
from relay.clock import SystemClock
from relay.config.models import OutboxConfig
from relay.errors import Fenced, OutboxError
from relay.outbox.log import commit
from relay.outbox.outbox import Outbox
from relay.outbox.postgres import database, session
from relay.outbox.records import EVERY_STREAM, LanesWanted
from tests.fault.test_postgres_restart import delivering, lose_nothing
from tests.support.builders import durable, new_stream, run, stream_id
from tests.support.dispatch.receiver import Receiver
from tests.support.outbox.outbox_store import claim, migrated, settled, the_lane, until, whole
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


async def cut_off(standby: PostgresServer, primary: PostgresServer) -> None:
    """The standby has what the primary has now, and gets nothing more."""
    end = primary.execute("SELECT pg_current_wal_lsn()")[0][0]
    await until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{end}'") == [(True,)])
    change(standby, "primary_conninfo = ''")
    await until(lambda: primary.execute("SELECT count(*) FROM pg_stat_replication") == [(0,)])


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
        await cut_off(standby, durable_server)
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


async def test_a_lane_that_was_claimed_of_both_servers_is_the_later_holder_s_alone(
    durable_server: PostgresServer, standby: PostgresServer
) -> None:
    url = of_both(durable_server, standby)
    former = await Outbox.open(url, name="former", clock=CLOCK)
    await former.lanes.sync_endpoints(["crm"])
    log = await former.open_stream(new_stream())
    await log.append(run(1, 1, 5))
    await cut_off(standby, durable_server)
    lost = await the_lane(former.lanes)
    await asyncio.to_thread(durable_server.stop)
    await asyncio.to_thread(standby.promote)
    later = await Outbox.open(url, name="later", clock=CLOCK)
    held = await the_lane(later.lanes)
    assert held.id == lost.id
    with suppress(OutboxError):
        await former.identity()  # its session is lost
    with pytest.raises(Fenced):
        await former.lanes.settle(settled(lost, 3))
    await later.lanes.settle(settled(held, 1))
    for each in (former, later):
        await each.aclose()


async def test_a_claim_waits_for_no_disk_but_for_the_standbys_if_there_are_any(durable_server: PostgresServer) -> None:
    outbox = await Outbox.open(durable_server.url(migrated(durable_server)), name="relay", clock=CLOCK)
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 5))
    with outbox._database.connect_writer() as connection, outbox._database.transaction(connection, alone=False):
        wanted = [LanesWanted("crm", 1, EVERY_STREAM)]
        assert len(outbox._database.claim(connection, wanted, "other", CLOCK.now_ms(), 0)) == 1
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off"
    change(durable_server, "synchronous_standby_names = 'standby'")
    claiming = asyncio.create_task(the_lane(outbox.lanes))
    unconfirmed = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%claim_lanes%'"
    await until(lambda: durable_server.execute(unconfirmed) == [(1,)])
    assert not claiming.done()
    change(durable_server, "synchronous_standby_names = ''")
    await claiming
    await outbox.aclose()


async def test_a_commit_that_no_standby_confirms_is_reported_and_check_says_why(
    durable_server: PostgresServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, new = (durable_server.url(name) for name in (migrated(durable_server), durable_server.create()))
    change(durable_server, "synchronous_standby_names = 'standby'")
    durable_server.stop("fast")
    durable_server.start()
    monkeypatch.setattr(commit, "SLOW_S", 0.05)
    monkeypatch.setattr(database, "SLOW_UPGRADE_S", 0.05)
    outbox = await Outbox.open(log, name="relay", clock=CLOCK)
    opening = asyncio.create_task(outbox.open_stream(new_stream()))
    creating = asyncio.create_task(Outbox.open(new, name="relay", clock=CLOCK))
    await until(lambda: "a commit does not end: look at the database's disk" in caplog.text)
    await until(lambda: "its tables are still being created or upgraded" in caplog.text)
    monkeypatch.setattr(session, "COMMITS_WITHIN_S", 0.5)
    for url in (log, new):
        finding = await asyncio.to_thread(probe_outbox, OutboxConfig(url=url))
        assert finding.status == "failed"
        why = "too few of the standbys in synchronous_standby_names confirm it: start them, or change 'standby'"
        assert finding.detail.endswith(why), finding.detail
    change(durable_server, "synchronous_standby_names = ''")
    await opening
    monkeypatch.setattr(session, "COMMITS_WITHIN_S", 60.0)
    assert (await asyncio.to_thread(probe_outbox, OutboxConfig(url=log))).status == "ok"
    for each in (outbox, await creating):
        await each.aclose()


def at_their_second(receiver: Receiver) -> set[str]:
    """The later streams whose second event has come."""
    streams = [request.json()["stream"] for request in receiver.requests]
    later = {stream_id(each) for each in LATER}
    return {stream["id"] for stream in streams if stream["sequence"] == 2 and stream["id"] in later}
