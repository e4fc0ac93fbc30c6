"""The log under stress, with real disks, locks and files: it says what is wrong, waits within a bound or fails loudly,
and goes on by itself; what was acknowledged is never lost."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.delivery import delivering
from relay.errors import OutboxError
from relay.outbox import turn
from relay.outbox.outbox import Outbox
from relay.outbox.stream_log import StreamLog
from relay.outbox.turn import Turn
from tests.support.outbox_store import Store, durable, new_stream, run, sqlite, until
from tests.support.receiver import Answer, Received, Receiver, receiving
from tests.support.small_disk import SmallDisk, small_disk

PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


@pytest.fixture
async def full_store(disk: SmallDisk) -> AsyncIterator[Store]:
    async with sqlite(disk.path) as opened:
        yield opened


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite(tmp_path) as opened:
        yield opened


def target(receiver: Receiver) -> Endpoint:
    return Endpoint.model_validate(
        {"name": "crm", "url": receiver.url, "signing": "none", "events": ["*"], "retry": {"schedule": ["100ms"] * 999}}
    )


async def append_until_refused(log: StreamLog, number: int = 1) -> OutboxError:
    """One by one; what it is refused with."""
    async with asyncio.timeout(30):
        while True:
            try:
                await log.append([durable(number, log.last_sequence + 1, size=20_000)])
            except OutboxError as error:
                return error


async def whole(outbox: Outbox, log: StreamLog) -> None:
    """Every event that was acknowledged is there, once, and no other."""
    sequences = [one.sequence for one in await outbox.history(log.id, limit=100_000)]
    assert sequences == list(range(1, log.last_sequence + 1))


async def until_waiting(log: StreamLog) -> None:
    """Until the log could not be written, and will be tried again."""
    await until(lambda: log._retry is not None)


async def test_a_full_disk_is_told_and_what_was_acknowledged_is_there(full_store: Store, disk: SmallDisk) -> None:
    outbox = await full_store.open(patience=0.3)
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    disk.fill()
    error = await append_until_refused(log)
    assert str(error) == f"outbox {disk.path}/relay.db: database or disk is full: free some space"
    acknowledged = log.last_sequence
    assert acknowledged >= 3
    disk.free()
    await log.append(run(1, acknowledged + 1, acknowledged + 5))
    await whole(outbox, log)


async def test_an_append_goes_on_by_itself_when_there_is_space_again(full_store: Store, disk: SmallDisk) -> None:
    outbox = await full_store.open(patience=30)
    log = await outbox.open_stream(new_stream())
    disk.fill()
    appends = [log.append([durable(1, sequence, size=20_000)]) for sequence in range(1, 60)]
    await until_waiting(log)
    disk.free()
    await asyncio.wait_for(asyncio.gather(*appends), 10)
    await whole(outbox, log)


async def test_a_stream_that_is_opened_while_the_disk_is_full_waits_as_an_append_does(
    full_store: Store, disk: SmallDisk
) -> None:
    outbox = await full_store.open(patience=30)
    log = await outbox.open_stream(new_stream())
    disk.fill()
    waiting = log.append([durable(1, sequence, size=20_000) for sequence in range(1, 60)])
    await until_waiting(log)
    opening = asyncio.ensure_future(outbox.open_stream(new_stream(2)))
    done, _ = await asyncio.wait([opening], timeout=0.5)
    assert not done, "there is no space for it, and it has the time to wait"
    disk.free()
    second = await asyncio.wait_for(opening, 10)
    await second.append(run(2, 1, 2))
    await waiting


async def test_a_stream_that_cannot_be_opened_in_time_says_why(full_store: Store, disk: SmallDisk) -> None:
    outbox = await full_store.open(patience=0.3)
    log = await outbox.open_stream(new_stream())
    disk.fill()
    await append_until_refused(log)
    opened = await asyncio.gather(
        *(outbox.open_stream(new_stream(number)) for number in range(2, 1000)), return_exceptions=True
    )
    refused = {str(one) for one in opened if isinstance(one, BaseException)}
    assert refused == {f"outbox {disk.path}/relay.db: database or disk is full: free some space"}


async def test_closing_does_not_wait_for_a_stream_to_be_opened(full_store: Store, disk: SmallDisk) -> None:
    outbox = await full_store.open(patience=3600)
    log = await outbox.open_stream(new_stream())
    disk.fill()
    append = log.append([durable(1, sequence, size=20_000) for sequence in range(1, 60)])
    await until_waiting(log)
    opening = asyncio.ensure_future(outbox.open_stream(new_stream(2)))
    await asyncio.wait([opening], timeout=0.3)
    async with asyncio.timeout(10):
        await outbox.aclose()
        results = await asyncio.gather(append, opening, return_exceptions=True)
    assert {type(one) for one in results} == {OutboxError}


async def test_a_log_on_a_full_disk_cannot_be_begun_and_says_why(full_store: Store, disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(OutboxError, match=r"relay\.db: .*: (free some space|check the disk, and that there is space)"):
        await full_store.open()


async def test_the_dispatcher_goes_on_by_itself_after_the_disk_was_full_while_it_settled(
    full_store: Store, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    lanes, events = 8, 12
    clock = SystemClock()
    outbox = await Outbox.open(full_store.url, name="relay", clock=clock)
    await outbox.lanes.sync_endpoints(["crm"])
    logs = [await outbox.open_stream(new_stream(number)) for number in range(1, lanes + 1)]
    for number, log in enumerate(logs, 1):
        await log.append(run(number, 1, events))
    with closing(sqlite3.connect(disk.path / "relay.db")) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # so that the next commit needs space
    async with receiving() as receiver:

        def answer(_: Received) -> Answer:
            if len(receiver.requests) == lanes:
                disk.fill()  # in the middle of it all: these have been taken, and cannot be settled
            return Answer(204)

        receiver.answer = answer
        async with delivering(outbox, [target(receiver)], clock, grace_s=10):
            await receiver.wait(lanes, within=20)
            await until(lambda: "disk is full" in caplog.text)
            assert len({one.id for one in receiver.requests}) < lanes * events
            disk.free()
            await receiver.wait_for(lambda: len({one.id for one in receiver.requests}) == lanes * events, within=30)
        told = [(record.levelname, record.exc_info) for record in caplog.records if "disk is full" in record.message]
        assert all(level in ("ERROR", "WARNING") and not traceback for level, traceback in told)
        assert len(receiver.requests) - lanes * events <= lanes, "at most the one of each lane that was in flight"
        came: dict[str, list[int]] = {}
        for request in receiver.requests:
            stream = request.json()["stream"]
            came.setdefault(stream["id"], []).append(stream["sequence"])
        for sequences in came.values():
            assert sorted(sequences) == sequences
    await outbox.aclose()


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


async def test_a_database_that_another_process_holds_for_half_a_minute_fails_what_waits_and_can_be_used_after(
    store: Store,
) -> None:
    outbox = await store.open(patience=1.0)  # the bound, shortened; half a minute is three times the real one
    log = await outbox.open_stream(new_stream())
    await outbox._commit.call(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=200"))
    with held(store) as holder:
        append = log.append([durable(1, 1)])
        with pytest.raises(OutboxError, match=r"database is locked: another process holds it; it is let go when that"):
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
    outbox = await store.open(patience=0.2)
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
        f"outbox {path}: database disk image is malformed: the file is damaged; move it away or restore a backup"
    )
    with pytest.raises(OutboxError, match="malformed"):
        await outbox.history(log.id)
    assert log.last_sequence == 500, "nothing was acknowledged that is not there"
    with pytest.raises(OutboxError, match=r"relay\.db: .*damaged"):
        await outbox.open_stream(new_stream(2))


@pytest.mark.parametrize("part", ["-wal", "-shm", ""])
async def test_a_file_that_is_removed_while_it_is_in_use_is_told_and_nothing_is_acknowledged_into_nowhere(
    store: Store, tmp_path: Path, part: str
) -> None:
    outbox = await store.open(patience=0.2)
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
            assert left.execute("SELECT count(*) FROM events").fetchone() == (20,)


async def test_a_database_that_is_replaced_while_it_is_in_use_is_not_written_to(store: Store, tmp_path: Path) -> None:
    outbox = await store.open(patience=0.2)
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    backup = tmp_path / "backup.db"
    backup.write_bytes((tmp_path / "relay.db").read_bytes())
    backup.replace(tmp_path / "relay.db")
    with pytest.raises(OutboxError, match=r"relay\.db was removed or replaced"):
        await log.append([durable(1, 4)])


async def test_a_directory_that_is_removed_while_it_is_in_use_is_told_each_time(store: Store, tmp_path: Path) -> None:
    store.url = f"sqlite:///{tmp_path}/var/relay.db"
    outbox = await store.open(patience=0.2)
    log = await outbox.open_stream(new_stream())
    shutil.rmtree(tmp_path / "var")
    for _ in range(2):
        with pytest.raises(OutboxError, match=r"var/relay\.db: No such file or directory"):
            await log.append([durable(1, 1)])


async def test_without_its_lock_file_the_queue_is_made_anew_and_two_processes_still_take_turns(
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
    monkeypatch.setattr(turn, "PATIENCE", 0.05)
    before = Turn(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    after = Turn(tmp_path / "lock")
    with after.taken(), pytest.raises(TimeoutError), before.taken():
        raise AssertionError("two have the turn at once")
    await until(lambda: not before._queued)
    before.close()
    after.close()
