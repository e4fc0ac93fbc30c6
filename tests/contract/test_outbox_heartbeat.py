"""Who is taken for dead, and who must not be: after the clock was set, and while nobody could write."""

import asyncio
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from relay.outbox.sqlite import write_lock as turn
from relay.outbox.sqlite.write_lock import WriteLock
from tests.support.builders import new_stream, stream_id
from tests.support.outbox.outbox_store import Store, until

HOUR_MS = 3_600_000
LEASE_MS = 6_000


async def beat(outbox: Outbox) -> None:
    """As the heartbeat does, but now."""
    await outbox._commit.call(outbox._heartbeat.beat)


async def test_a_clock_that_is_set_forward_makes_no_orphans_of_the_living(store: Store) -> None:
    job, dead, relay = [await store.open(name) for name in ("job", "dead", "relay")]
    await job.open_stream(new_stream(1))
    await dead.open_stream(new_stream(2))
    assert await relay.orphans() == []
    store.clock.set_by = HOUR_MS
    assert await relay.orphans() == [], "nobody has had the time to renew a lease"
    store.clock.at += LEASE_MS - 1000
    await beat(job)
    assert await relay.orphans() == []
    store.clock.at += 1000
    assert await relay.orphans() == [stream_id(2)], "one is alive, the other one has had its time"


async def test_a_clock_that_is_set_back_does_not_let_the_dead_live_for_an_hour(store: Store) -> None:
    dead, relay = await store.open("dead"), await store.open("relay")
    await dead.open_stream(new_stream())
    assert await relay.orphans() == []
    before = store.clock.now_ms()
    store.clock.set_by = -HOUR_MS
    await relay.lanes.shift(-HOUR_MS, beyond=before)
    assert await relay.orphans() == []
    store.clock.at += LEASE_MS
    assert await relay.orphans() == [stream_id(1)]


async def test_a_correction_of_the_clock_that_leases_can_bear_delays_nothing(store: Store) -> None:
    dead, relay = await store.open("dead"), await store.open("relay")
    await dead.open_stream(new_stream())
    assert await relay.orphans() == []
    store.clock.set_by = 900
    store.clock.at += LEASE_MS
    assert await relay.orphans() == [stream_id(1)]


async def test_writers_that_could_not_renew_for_a_while_are_not_taken_for_dead(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LONGEST_WAIT_S", 0.2)
    job = await Outbox.open(store.url, name="job", clock=SystemClock(), lease_ms=900)
    relay = await Outbox.open(store.url, name="relay", clock=SystemClock(), lease_ms=900)
    await job.open_stream(new_stream())
    assert await relay.orphans() == []
    somebody_else = WriteLock(tmp_path / "relay.db.lock")
    loop = asyncio.get_running_loop()
    with somebody_else.taken():
        end = loop.time() + 2.5
        while loop.time() < end:
            assert await relay.orphans() == []
            await asyncio.sleep(0.01)
    somebody_else.close()
    end = loop.time() + 1.5
    while loop.time() < end:
        assert await relay.orphans() == []
        await asyncio.sleep(0.01)
    await job.aclose()
    async with asyncio.timeout(30):
        while not await relay.orphans():
            pass
    await relay.aclose()


async def test_a_bug_in_one_renewal_of_a_lease_does_not_end_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await Outbox.open(store.url, name="job", clock=SystemClock(), lease_ms=300)
    renewals: list[object] = []

    def breaks_once(connection: object) -> None:
        renewals.append(connection)
        if len(renewals) == 1:
            raise ValueError("what alice said")

    outbox._heartbeat._also = breaks_once
    await outbox.open_stream(new_stream())
    await until(lambda: len(renewals) > 1)
    await outbox.aclose()
    assert "the lease on this process's streams could not be renewed: ValueError" in caplog.text
    assert "what alice said" not in caplog.text
