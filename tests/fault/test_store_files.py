"""A log whose file another process holds, or somebody damages, removes or replaces.

It is told each time, and nothing is acknowledged into nowhere.
"""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from relay.app.orphans import close_orphans_once
from relay.errors import OutboxError
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.sqlite import write_lock as turn
from relay.outbox.sqlite.write_lock import WriteLock
from tests.support.builders import durable, new_stream, run
from tests.support.outbox.outbox_store import Store, claim, until, whole

PAGE = 4096


async def test_a_database_that_another_process_holds_for_three_seconds_is_waited_for(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    with held(store) as holder:
        append = log.append([durable(1, 1)])
        opening = asyncio.ensure_future(outbox.open_stream(new_stream(2)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(append), 3)
        assert not opening.done()
        holder.execute("COMMIT")
        await asyncio.wait_for(append, 10)
        await asyncio.wait_for(opening, 10)
    await whole(outbox, log)


async def test_a_database_held_for_half_a_minute_fails_what_waits_and_works_after(
    store: Store,
) -> None:
    outbox = await store.open(retry_s=1.0)  # the bound, shortened; half a minute is three times the real one
    log = await outbox.open_stream(new_stream())
    await outbox._commit.call(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=200"))
    with held(store) as holder:
        append = log.append([durable(1, 1)])
        with pytest.raises(
            OutboxError, match=r"database is locked: another process holds it, and releases it when it ends"
        ):
            await asyncio.wait_for(append, 10)
        with pytest.raises(OutboxError, match="database is locked"):
            await asyncio.wait_for(outbox.open_stream(new_stream(2)), 10)
        assert await outbox.history(log.id) == [], "reading does not wait for those who write"
        holder.execute("COMMIT")
    await log.append(run(1, 1, 2))
    await whole(outbox, log)


@contextmanager
def held(store: Store) -> Iterator[sqlite3.Connection]:
    """Another connection that has begun to write and does not go on."""
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"), isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield holder


async def test_a_file_that_is_damaged_while_it_is_in_use_fails_loudly(store: Store, tmp_path: Path) -> None:
    outbox = await store.open(retry_s=0.2)
    log = await outbox.open_stream(new_stream())
    for first in range(1, 500, 100):
        await log.append([durable(1, sequence, size=2000) for sequence in range(first, first + 100)])
    path = tmp_path / "relay.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(PAGE)
            file.write(os.urandom(path.stat().st_size - PAGE))
        other.execute("PRAGMA user_version = 1")  # a change by another, so that nobody trusts what it has in memory
    with pytest.raises(OutboxError) as caught:
        await log.append([durable(1, 501)])
    assert str(caught.value) == (
        f"outbox {path}: database disk image is malformed: the file is damaged; move it away or restore a backup, and "
        "move what ends in -wal and -shm away with it"
    )
    with pytest.raises(OutboxError, match="malformed"):
        await outbox.history(log.id)
    assert log.last_sequence == 500, "nothing was acknowledged that is not there"
    with pytest.raises(OutboxError, match=r"relay\.db: .*damaged"):
        await outbox.open_stream(new_stream(2))


@pytest.mark.parametrize("part", ["-wal", "-shm", ""])
async def test_a_file_removed_while_in_use_is_reported_and_nothing_lost_is_acknowledged(
    store: Store, tmp_path: Path, part: str
) -> None:
    outbox = await store.open(retry_s=0.2)
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 20))
    (tmp_path / f"relay.db{part}").unlink()
    with pytest.raises(OutboxError) as caught:
        await log.append([durable(1, 21)])
    assert str(caught.value) == (
        f"outbox {tmp_path}/relay.db: relay.db{part} was removed or replaced while it was in use: "
        "stop the relay; where the database itself is gone, restore a backup; then start again"
    )
    if part == "-wal":
        copy = tmp_path / "copy.db"  # as if all that is open were killed now
        copy.write_bytes((tmp_path / "relay.db").read_bytes())
        with closing(sqlite3.connect(copy)) as left:
            assert left.execute("SELECT count(*) FROM events").fetchone() == (20,), (
                "what was appended must stay in the log"
            )


async def test_a_database_that_is_replaced_while_it_is_in_use_is_not_written_to(store: Store, tmp_path: Path) -> None:
    outbox = await store.open(retry_s=0.2)
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    backup = tmp_path / "backup.db"
    backup.write_bytes((tmp_path / "relay.db").read_bytes())
    backup.replace(tmp_path / "relay.db")
    with pytest.raises(OutboxError, match=r"relay\.db was removed or replaced"):
        await log.append([durable(1, 4)])


async def test_a_directory_that_is_removed_while_it_is_in_use_is_told_each_time(store: Store, tmp_path: Path) -> None:
    store.url = f"sqlite:///{tmp_path}/var/relay.db"
    outbox = await store.open(retry_s=0.2)
    log = await outbox.open_stream(new_stream())
    shutil.rmtree(tmp_path / "var")
    for _ in range(2):
        with pytest.raises(OutboxError, match=r"var/relay\.db: No such file or directory"):
            await log.append([durable(1, 1)])


async def test_a_removed_lock_file_is_made_again_and_two_processes_still_take_turns(
    store: Store, tmp_path: Path
) -> None:
    first = await store.open("a")
    log = await first.open_stream(new_stream())
    (tmp_path / "relay.db.lock").unlink()
    second = await store.open("b")
    other = await second.open_stream(new_stream(2))
    for sequence in range(1, 30):
        await asyncio.gather(log.append([durable(1, sequence)]), other.append([durable(2, sequence)]))
    await whole(first, log)
    await whole(second, other)


async def test_who_had_the_lock_file_before_it_was_removed_waits_for_who_has_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LONGEST_WAIT_S", 0.05)
    before = WriteLock(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    after = WriteLock(tmp_path / "lock")
    with after.taken(), pytest.raises(TimeoutError), before.taken():
        raise AssertionError("two have the turn at once")
    await until(lambda: not before._queued)
    before.close()
    after.close()


async def test_a_backup_that_is_taken_while_events_are_appended_goes_on_from_there(
    store: Store, tmp_path: Path
) -> None:
    """As docs/how-to/operate.md has it."""
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    logs = [await outbox.open_stream(new_stream(number)) for number in (1, 2)]
    backup, done, acknowledged = tmp_path / "backup.db", asyncio.Event(), {1: 0, 2: 0}

    async def append(number: int, log: StreamLog) -> None:
        while not done.is_set():
            await log.append([durable(number, log.last_sequence + 1)])
            acknowledged[number] += 1

    appending = [asyncio.create_task(append(number, log)) for number, log in enumerate(logs, 1)]
    await until(lambda: min(acknowledged.values()) >= 5)
    before = list(acknowledged.values())
    with closing(sqlite3.connect(tmp_path / "relay.db", check_same_thread=False)) as other:
        await asyncio.to_thread(other.execute, "VACUUM INTO ?", [str(backup)])
    done.set()
    await asyncio.gather(*appending)
    await outbox.aclose()
    for part in tmp_path.glob("relay.db*"):
        part.unlink()
    backup.rename(tmp_path / "relay.db")

    restored = await store.open("restored")
    store.clock.at += 60_000
    await close_orphans_once(restored, store.clock)
    for log, at_least in zip(logs, before, strict=True):
        records = await restored.history(log.id, limit=100_000)
        assert [one.sequence for one in records] == list(range(1, len(records) + 1))
        assert len(records) > at_least
        assert [one.closes for one in records] == [False] * (len(records) - 1) + [True]
    assert len(await claim(restored.lanes)) == 2
