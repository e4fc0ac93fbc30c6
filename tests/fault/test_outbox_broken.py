"""A log that cannot be used: the operator reads where and why, and nothing that was said."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from relay.errors import OutboxError, StreamTaken
from relay.outbox import schema
from relay.outbox.opening import holds_log
from relay.outbox.outbox import Outbox
from relay.outbox.records import Append, DeadLetter, Settlement
from relay.outbox.sqlite import write_lock as turn
from relay.outbox.sqlite.database import SQLite
from relay.outbox.sqlite.write_lock import WriteLock
from tests.support.builders import durable, interim, new_stream, run
from tests.support.outbox.outbox_store import Store, one_stream, parking, rows, the_lane, until
from tests.support.outbox.small_disk import small_disk

SECRET = "what was said"


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def refused(store: Store, *, says: str) -> None:
    with pytest.raises(OutboxError, match=says) as caught:
        await store.open()
    assert store.url.removeprefix("sqlite:///") in str(caught.value)


async def test_a_file_that_is_no_database(store: Store, tmp_path: Path) -> None:
    (tmp_path / "relay.db").write_bytes(b"not a database, " * 100)
    await refused(store, says="not a database.* move it away or restore")


async def test_a_damaged_database(store: Store, tmp_path: Path) -> None:
    await (await store.open()).aclose()
    path = tmp_path / "relay.db"
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 4096 * 40)
    with pytest.raises(OutboxError, match=r"relay\.db: .*damaged"):
        await (await store.open()).lanes.sync_endpoints(["crm"])


async def test_a_directory_that_is_missing_is_made(store: Store, tmp_path: Path) -> None:
    store.url = f"sqlite:///{tmp_path}/var/relay.db"
    await store.open()
    assert (tmp_path / "var" / "relay.db").is_file()


async def test_more_than_one_directory_that_is_missing(store: Store, tmp_path: Path) -> None:
    store.url = f"sqlite:///{tmp_path}/wrong/var/relay.db"
    await refused(store, says=r"there is no directory .*/wrong/var: create it")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("under", ["", "/deeper"])
async def test_a_file_in_place_of_a_directory(store: Store, tmp_path: Path, under: str) -> None:
    (tmp_path / "var").touch()
    store.url = f"sqlite:///{tmp_path}/var{under}/relay.db"
    await refused(store, says=": a file has the name of its directory: move that away, or correct outbox.url")


async def test_a_disk_that_is_read_only(store: Store, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.forbid_writing()
        for folder in ("", "/var"):
            store.url = f"sqlite:///{disk.path}{folder}/relay.db"
            await refused(store, says=": Read-only file system: name a place that can be written to in outbox.url")


async def test_a_directory_in_place_of_the_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "relay.db").unlink()
    (tmp_path / "relay.db").mkdir()
    await refused(store, says="relay.db is not a regular file: move it away")


async def test_a_directory_that_may_not_be_written(store: Store, tmp_path: Path) -> None:
    await (await store.open()).aclose()  # imports all there is to import
    tmp_path.chmod(0o755)
    store.url = f"sqlite:///{tmp_path}/other.db"
    with nobody():
        await refused(store, says="Permission denied: run this as the user of the relay, or correct outbox.url")


async def test_a_file_that_may_not_be_written(store: Store, tmp_path: Path) -> None:
    await (await store.open()).aclose()
    (tmp_path / "relay.db").chmod(0o444)
    (tmp_path / "relay.db.lock").chmod(0o666)
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.owner() == tmp_path.owner() and parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    with nobody():
        await refused(store, says=r"readonly.* right to write")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://localhost/relay", "names mysql: write sqlite:///"),
        ("relay.db", "not the URL of a database"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
    ],
)
async def test_a_url_that_names_no_file(store: Store, url: str, says: str) -> None:
    store.url = url
    with pytest.raises(OutboxError, match=rf"outbox\.url .*{says}"):
        await store.open()


async def full(outbox: Outbox, *, pages: int) -> None:
    """Let the database grow by so many pages at most: SQLite then says what it says of a full disk."""

    def limit(connection: sa.Connection) -> None:
        size = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={size + pages}")

    async with asyncio.timeout(30):
        while True:
            with suppress(OutboxError):  # it shared a transaction with an append that found no room
                return await outbox._commit.call(limit)


async def test_a_full_disk_is_waited_for(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    await full(outbox, pages=2)
    appends = [log.append([durable(1, sequence, size=3000)]) for sequence in range(1, 30)]
    await appends[0]
    assert not appends[-1].done()
    await full(outbox, pages=10_000)
    await asyncio.gather(*appends)
    assert len(await outbox.history(log.id)) == 29, (
        "events that waited for the full disk must be in the log once it has room"
    )


async def test_a_disk_that_stays_full_fails_what_is_queued_and_the_log_can_go_on_after(store: Store) -> None:
    outbox = await store.open(retry_s=0.15)
    other = await outbox.open_stream(new_stream(2))
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1)])
    await full(outbox, pages=0)
    appends = [log.append([interim(1, sequence, revision=sequence, text=SECRET * 999)]) for sequence in range(2, 20)]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert {type(one) for one in outcomes} == {OutboxError}
    assert "relay.db: database or disk is full: free some space" in str(outcomes[0]), (
        "the error must name the file and the cure"
    )
    assert not any(SECRET in f"{one}{one!r}{one.__cause__}" for one in outcomes if isinstance(one, BaseException))
    assert log.last_sequence == 1
    await full(outbox, pages=10_000)
    await asyncio.gather(log.append(run(1, 2, 3)), other.append(run(2, 1, 2)))
    assert [one.sequence for one in await outbox.history(log.id)] == [1, 2, 3], (
        "each event must be in the log exactly once"
    )


async def test_closing_does_not_wait_out_the_patience(store: Store) -> None:
    outbox = await store.open(retry_s=3600)
    log = await outbox.open_stream(new_stream())
    await full(outbox, pages=0)
    append = log.append([durable(1, 1, size=100_000)])
    await until(lambda: log._retry is not None)
    async with asyncio.timeout(30):
        await outbox.aclose()
    with pytest.raises(OutboxError, match="closed"):
        await append


async def test_closing_does_not_try_again_what_fails_meanwhile(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LONGEST_WAIT_S", 0.05)
    outbox = await store.open(retry_s=3600)
    log = await outbox.open_stream(new_stream())
    frozen = WriteLock(tmp_path / "relay.db.lock")
    with frozen.taken():
        append = log.append([durable(1, 1)])
        async with asyncio.timeout(30):
            await outbox.aclose()
        with pytest.raises(OutboxError, match="locked"):
            await append
    frozen.close()


class LiesOnce(SQLite):
    """Says of its first commit with events that it failed, after it was done."""

    lied = False

    def append(self, connection: sa.Connection, appends: Sequence[Append], now: int) -> bool:
        self._appends = True
        return super().append(connection, appends, now)

    @contextmanager
    def turn(self, connection: sa.Connection) -> Iterator[None]:
        self._appends = False
        with super().turn(connection):
            yield
        if self._appends and not self.lied:
            self.lied = True
            raise OSError(None, "connection lost")


async def test_an_append_whose_commit_was_lost_sight_of_is_not_doubled_nor_lost(store: Store, tmp_path: Path) -> None:
    database = LiesOnce(str(tmp_path / "relay.db"))
    outbox = Outbox(database, name="a", clock=store.clock, lease_ms=6000, retry_s=10)
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 2))
    assert database.lied
    await log.append([durable(1, 3)])
    assert [one.sequence for one in await outbox.history(log.id)] == [1, 2, 3], (
        "each event must be in the log exactly once"
    )
    await outbox.aclose()


class Lies(SQLite):
    """Says of a commit that it failed, after it was done, where it is told to."""

    lie = False

    @contextmanager
    def turn(self, connection: sa.Connection) -> Iterator[None]:
        with super().turn(connection):
            yield
        if self.lie:
            self.lie = False
            raise OSError(None, "connection lost")


async def test_an_opening_whose_commit_was_lost_sight_of_is_no_other_writers(store: Store, tmp_path: Path) -> None:
    database = Lies(str(tmp_path / "relay.db"))
    outbox = Outbox(database, name="a", clock=store.clock, lease_ms=6000, retry_s=10)
    database.lie = True
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1)])
    with pytest.raises(StreamTaken):
        await outbox.open_stream(new_stream())
    await outbox.aclose()


@pytest.mark.parametrize("table", [schema.parked, schema.dead_letters], ids=str)
async def test_an_event_is_put_aside_once_if_the_commit_was_lost_sight_of(
    store: Store, tmp_path: Path, table: sa.Table
) -> None:
    outbox = await one_stream(store, "crm", "bi")
    lane = await the_lane(outbox.lanes)
    settlement = parking(lane)
    if table is schema.dead_letters:
        settlement = Settlement(lane.id, lane.fence, 1, 1, 0, dead=DeadLetter(1, 12, "status 404", 0))
    database = Lies(str(tmp_path / "relay.db"))
    other = Outbox(database, name="relay", clock=store.clock, lease_ms=6000, retry_s=10)
    database.lie = True
    with pytest.raises(OutboxError, match="connection lost"):
        await other.lanes.settle(settlement)
    await other.lanes.settle(settlement)
    assert len(await rows(outbox, table)) == 1
    assert [row[6] for row in await rows(outbox, schema.streams)] == [3, 1], "and told once"
    await other.aclose()


async def test_another_process_that_holds_the_database_is_waited_for(store: Store, tmp_path: Path) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    await outbox._commit.call(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=1"))
    holder = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    append = log.append([durable(1, 1)])
    await until(lambda: log._retry is not None)
    holder.execute("COMMIT")
    holder.close()
    await append


async def test_a_turn_that_is_never_given_is_told_and_not_waited_for_for_ever(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LONGEST_WAIT_S", 0.02)
    outbox = await store.open(retry_s=0)
    log = await outbox.open_stream(new_stream())
    frozen = WriteLock(tmp_path / "relay.db.lock")
    with frozen.taken():
        with pytest.raises(OutboxError, match=r"relay\.db: locked .*another process holds it"):
            await log.append([durable(1, 1)])
        with pytest.raises(OutboxError, match="locked"):
            await log.append([durable(1, 1)])
    monkeypatch.setattr(turn, "LONGEST_WAIT_S", 10)
    await log.append([durable(1, 1)])
    frozen.close()


async def test_a_turn_that_comes_too_late_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "LONGEST_WAIT_S", 0.02)
    holder, impatient, third = [WriteLock(tmp_path / "lock") for _ in range(3)]
    with holder.taken(), pytest.raises(TimeoutError), impatient.taken():
        raise AssertionError("two have the turn at once")
    await until(lambda: not impatient._queued)
    with third.taken():
        pass
    with impatient.taken():
        pass
    for one in (holder, impatient, third):
        one.close()


async def test_a_turn_that_is_soon_over_is_waited_for_without_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, next_one = WriteLock(tmp_path / "lock"), WriteLock(tmp_path / "lock")
    with ExitStack() as held:
        held.enter_context(holder.taken())
        monkeypatch.setattr(time, "sleep", lambda _: held.close())
        with next_one.taken():
            assert not next_one._queued
    for one in (holder, next_one):
        one.close()


async def test_a_log_in_a_folder_of_another_user_is_not_taken_for_none(store: Store, tmp_path: Path) -> None:
    await (await store.open()).aclose()
    tmp_path.chmod(0o000)
    try:
        with nobody(), pytest.raises(OutboxError, match="Permission denied: run this as the user of the relay"):
            holds_log(store.url)
    finally:
        tmp_path.chmod(0o700)
