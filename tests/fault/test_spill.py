"""A PostgreSQL server is away for long: what is appended waits on disk, and is appended in order, whoever is left."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from relay.app.orphans import close_orphans_once
from relay.clock import SystemClock
from relay.errors import OutboxError
from relay.events.stream import StreamEnded
from relay.outbox.log import stream_log
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from tests.support.builders import durable, ended, new_stream, run, stream_id
from tests.support.outbox.outbox_process import Child, Spill
from tests.support.outbox.postgres import PostgresServer, running_server

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this file's own, to stop."""
    with running_server() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "var" / "spill"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_log, "SPILL_AFTER", 0.05)


class Opener:
    """Opens a log of the server's, and closes it at the end."""

    def __init__(self, url: str, folder: Path, stack: AsyncExitStack) -> None:
        self.url, self._folder, self._stack = url, folder, stack

    async def __call__(self, name: str = "relay", *, most: int = 1 << 20, patience: float = 60.0) -> Outbox:
        spill = Spill(str(self._folder), most)
        outbox = await Outbox.open(self.url, name=name, clock=CLOCK, spill=spill, patience=patience)
        self._stack.push_async_callback(outbox.aclose)
        return outbox


@pytest.fixture
async def opener(server: PostgresServer, folder: Path) -> AsyncIterator[Opener]:
    name = server.create()
    async with AsyncExitStack() as stack:
        yield Opener(server.url(name), folder, stack)


class Away:
    """The server is away while the block runs."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    async def __aenter__(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._server.start)


async def files(folder: Path, count: int) -> list[Path]:
    """The files in the folder, once there are so many with something in them."""
    async with asyncio.timeout(60):
        while len(found := [path for path in folder.glob("*") if path.stat().st_size > 200]) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


async def sequences(outbox: Outbox, number: int = 1) -> list[int]:
    return [one.sequence for one in await outbox.history(stream_id(number), limit=100_000)]


async def append_left(outbox: Outbox) -> None:
    """Once the server is back."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await outbox.append_left()
            except OutboxError:
                await asyncio.sleep(0.05)


async def test_what_waited_on_disk_is_appended_in_order_before_what_came_later(
    server: PostgresServer, opener: Opener, folder: Path
) -> None:
    outbox = await opener()
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 1))
    for outage in range(2):
        first = log.last_sequence + 1
        async with Away(server):
            held = [log.append([durable(1, sequence)]) for sequence in range(first, first + 700)]
            (path,) = await files(folder, 1)
            assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
            held += [log.append([durable(1, sequence)]) for sequence in range(first + 700, first + 1000)]
            assert in_memory(log) <= 512, outage
        held.append(log.append([durable(1, log.last_sequence + 1)]))
        await asyncio.gather(*held)
        await files(folder, 0)
    assert await sequences(outbox) == list(range(1, log.last_sequence + 1))


def in_memory(log: StreamLog) -> int:
    """The records that wait outside of the file only, or in both."""
    return sum(len(each.records) for each in (*log._writing, *log._waiting))


async def test_the_next_process_appends_what_a_killed_one_had_left(
    server: PostgresServer, opener: Opener, folder: Path
) -> None:
    outbox = await opener()
    async with Child("spill", opener.url, str(folder)) as child:
        while int(await child.line()) < 5:
            pass
        async with Away(server):
            await files(folder, 2)
            for _ in range(20):
                last = int(await child.line())
            child.process.kill()
            await child.process.wait()
    await outbox.end_leases(["job-1"])
    async with asyncio.timeout(60):
        while await outbox.orphans() == []:  # noqa: ASYNC110 - while live processes could not beat, none is dead
            await asyncio.sleep(0.1)
    await close_orphans_once(outbox, CLOCK)
    assert list(folder.iterdir()) == []
    for number in (1, 2):
        found = await outbox.history(stream_id(number), limit=100_000)
        assert [one.sequence for one in found] == list(range(1, len(found) + 1))
        assert len(found) > last
        assert found[-1].type == StreamEnded.model_fields["type"].default


async def test_nothing_is_appended_to_a_stream_that_was_ended_meanwhile(
    server: PostgresServer, opener: Opener, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await opener("job-1")
    log = await first.open_stream(new_stream())
    await log.append(run(1, 1, 2))
    async with Away(server):
        lost = log.append(run(1, 3, 9))
        await files(folder, 1)
        closing = asyncio.create_task(first.aclose())
        with pytest.raises(OutboxError):
            await lost
    await closing
    await files(folder, 1)
    other = await opener("other")
    await other.end_leases(["job-1"])
    taken = await other.take_over(stream_id(1))
    await taken.append([ended(1, 3)])
    with caplog.at_level(logging.ERROR):
        await other.append_left()
    assert "was ended by another process" in caplog.text
    assert await sequences(other) == [1, 2, 3]
    assert list(folder.iterdir()) == []


async def test_what_its_process_had_appended_already_is_not_appended_again(
    server: PostgresServer, opener: Opener, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await opener("job-1")
    log = await first.open_stream(new_stream())
    async with Away(server):
        held = [log.append([durable(1, sequence)]) for sequence in range(1, 7)]
        (path,) = await files(folder, 1)
        written = path.read_bytes()
        await first.aclose()
        await asyncio.gather(*held, return_exceptions=True)
    second = await opener()
    await second.append_left()
    for left in (written, written[:-1]):  # as if it had been killed before it could remove the file
        path.write_bytes(left)
        await second.append_left()
    assert await sequences(second) == [1, 2, 3, 4, 5, 6]
    assert list(folder.iterdir()) == []
    assert "was ended by another process" not in caplog.text


async def test_a_process_that_stops_in_an_outage_leaves_what_waits_to_the_next(
    server: PostgresServer, opener: Opener, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_log, "SPILL_AFTER", 3600)
    first = await opener("job-1")
    log = await first.open_stream(new_stream())
    async with Away(server):
        waiting = log.append([*run(1, 1, 3), ended(1, 4)])
        await first.aclose()
        with pytest.raises(OutboxError):
            await waiting
    second = await opener()
    await second.append_left()
    assert await sequences(second) == [1, 2, 3, 4]
    await second.append_left()
    assert await second.orphans() == []


async def test_a_record_that_was_cut_off_ends_what_is_appended(
    server: PostgresServer, opener: Opener, folder: Path
) -> None:
    first = await opener("job-1")
    log = await first.open_stream(new_stream())
    async with Away(server):
        waiting = log.append(run(1, 1, 3))
        await first.aclose()
        with pytest.raises(OutboxError):
            await waiting
        (path,) = await files(folder, 1)
        path.write_bytes(path.read_bytes()[:-5])
    second = await opener()
    await append_left(second)
    assert await sequences(second) == [1, 2]
    assert list(folder.iterdir()) == []


async def test_what_exceeds_the_folder_is_refused_and_the_rest_goes_on(
    server: PostgresServer, opener: Opener, folder: Path
) -> None:
    most = 20_000
    outbox = await opener(most=most)
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 1))
    async with Away(server):
        held = [log.append([durable(1, 2)])]
        await files(folder, 1)
        refused = None
        while refused is None:
            done = log.append([durable(1, log.last_sequence + 1)])
            if done.done():
                refused = done.exception()
            else:
                held.append(done)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= most + 1000
    assert isinstance(refused, OutboxError)
    assert "may not grow" in str(refused)
    await asyncio.gather(*held)
    await log.append([durable(1, log.last_sequence + 1)])
    assert await sequences(outbox) == list(range(1, len(held) + 3))


async def test_a_folder_that_others_may_enter_is_not_written_to(
    server: PostgresServer, opener: Opener, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    outbox = await opener(patience=0.5)
    log = await outbox.open_stream(new_stream())
    async with Away(server):
        with pytest.raises(OutboxError):
            await log.append(run(1, 1, 1))
    assert list(folder.iterdir()) == []
    assert "events wait in memory only" in caplog.text
    assert "set outbox.spill.path" in caplog.text
