"""A log whose disk is full: it says so, waits within a bound or fails loudly, and goes on by itself.

What was acknowledged is never lost.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.errors import OutboxError
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from tests.support.builders import durable, endpoint, new_stream, run
from tests.support.dispatch.dispatching import per_stream
from tests.support.dispatch.receiver import Answer, Received, Receiver, receiving
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_store import Store, sqlite, until, whole
from tests.support.outbox.small_disk import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


@pytest.fixture
async def full_store(disk: SmallDisk) -> AsyncIterator[Store]:
    async with sqlite(disk.path) as opened:
        yield opened


def target(receiver: Receiver) -> Endpoint:
    return endpoint(url=receiver.url, retry={"schedule": ["100ms"] * 999})


async def append_until_refused(log: StreamLog, number: int = 1) -> OutboxError:
    """One by one; what it is refused with."""
    async with asyncio.timeout(30):
        while True:
            try:
                await log.append([durable(number, log.last_sequence + 1, size=20_000)])
            except OutboxError as error:
                return error


async def until_waiting(log: StreamLog) -> None:
    """Until the log could not be written, and will be tried again."""
    await until(lambda: log._retry is not None)


async def test_a_full_disk_is_told_and_what_was_acknowledged_is_there(full_store: Store, disk: SmallDisk) -> None:
    outbox = await full_store.open(retry_s=0.3)
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    disk.fill()
    error = await append_until_refused(log)
    assert str(error) == f"outbox {disk.path}/relay.db: database or disk is full: free some space", (
        "the error must name the file and the cure"
    )
    acknowledged = log.last_sequence
    assert acknowledged >= 3, "the disk was full before anything could be appended"
    disk.free()
    await log.append(run(1, acknowledged + 1, acknowledged + 5))
    await whole(outbox, log)


async def test_an_append_goes_on_by_itself_when_there_is_space_again(full_store: Store, disk: SmallDisk) -> None:
    outbox = await full_store.open(retry_s=30)
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
    outbox = await full_store.open(retry_s=30)
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
    outbox = await full_store.open(retry_s=0.3)
    log = await outbox.open_stream(new_stream())
    disk.fill()
    await append_until_refused(log)
    opened = await asyncio.gather(
        *(outbox.open_stream(new_stream(number)) for number in range(2, 1000)), return_exceptions=True
    )
    refused = {str(one) for one in opened if isinstance(one, BaseException)}
    assert refused == {f"outbox {disk.path}/relay.db: database or disk is full: free some space"}


async def test_closing_does_not_wait_for_a_stream_to_be_opened(full_store: Store, disk: SmallDisk) -> None:
    outbox = await full_store.open(retry_s=3600)
    log = await outbox.open_stream(new_stream())
    disk.fill()
    append = log.append([durable(1, sequence, size=20_000) for sequence in range(1, 60)])
    await until_waiting(log)
    opening = asyncio.ensure_future(outbox.open_stream(new_stream(2)))
    await asyncio.wait([opening], timeout=0.3)
    async with asyncio.timeout(30):
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
        assert told
        assert all(level in ("ERROR", "WARNING") and not traceback for level, traceback in told)
        assert len(receiver.requests) - lanes * events <= lanes, "at most the one of each lane that was in flight"
        for sequences in per_stream(receiver.requests).values():
            assert sorted(sequences) == sequences, "events must arrive in order"
    await outbox.aclose()


async def test_commands_that_only_read_work_beside_a_relay_whose_disk_is_full(
    full_store: Store, disk: SmallDisk
) -> None:
    folder = Folder(disk.path)
    folder.configure(crm={})
    outbox = await full_store.open(retry_s=0.3)
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    disk.fill()
    await append_until_refused(log)
    for command in ("status", "deliveries", "events", "endpoints"):
        done = await folder.run(command)
        assert (done.returncode, done.stderr) == (1 if command == "status" else 0, ""), command
        assert done.stdout
    done = await folder.run("endpoints", "disable", "crm")
    why = f"outbox {disk.path}/relay.db: database or disk is full: free some space\n"
    assert (done.returncode, done.stderr) == (2, why), "what writes says why it cannot"


async def test_a_command_that_finds_no_space_to_read_says_what_to_do(full_store: Store, disk: SmallDisk) -> None:
    """Without a relay, SQLite's index of the write-ahead log has to be made."""
    folder = Folder(disk.path)
    await (await full_store.open()).aclose()
    disk.fill()
    done = await folder.run("status")
    why = "disk I/O error: check the disk, and that there is space left on it"
    assert (done.returncode, done.stderr) == (2, f"outbox {disk.path}/relay.db: {why}\n")
