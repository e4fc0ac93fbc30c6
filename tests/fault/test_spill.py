"""A PostgreSQL server is away for long: what is appended waits on disk, and is appended in order, whoever is left."""

import asyncio
import fcntl
import json
import logging
import os
import resource
import shutil
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.app.orphans import close_orphans_once
from relay.clock import SystemClock
from relay.errors import OutboxError
from relay.events.stream import StreamEnded
from relay.outbox.log import stream_log
from relay.outbox.log.spill import SpillFile, SpillFolder
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.log.streams import Held
from relay.outbox.metrics import LogMetrics
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record, record
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

    async def __call__(self, name: str = "relay", *, most: int = 1 << 20, retry_s: float = 60.0) -> Outbox:
        spill = Spill(str(self._folder), most)
        outbox = await Outbox.open(self.url, name=name, clock=CLOCK, spill=spill, retry_s=retry_s)
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


async def test_a_close_in_an_outage_waits_for_the_append_in_progress_and_no_longer() -> None:
    tries: list[asyncio.Future[None]] = []

    def append(_: object) -> asyncio.Future[None]:
        tries.append(asyncio.get_running_loop().create_future())
        return tries[-1]

    log = StreamLog(Held(1, stream_id(1), 1, 0), append, append, retry_s=60, metrics=LogMetrics())
    waiting = log.append(run(1, 1, 1))
    tries[0].set_exception(OutboxError("the database is away"))
    async with asyncio.timeout(30):
        while len(tries) < 2:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)
    closing = asyncio.create_task(log.aclose())
    await asyncio.sleep(0)
    tries[1].set_exception(OutboxError("the database is away"))
    with pytest.raises(OutboxError):
        await asyncio.wait_for(waiting, 30)
    await closing
    assert len(tries) == 2, "nothing is tried again once the log is being closed"


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


async def test_a_file_whose_process_died_as_it_began_it_is_removed(opener: Opener, folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)
    begun, in_use = folder / f"{stream_id(1)}-1.spill", folder / f"{stream_id(2)}-1.spill"
    for path in (begun, in_use):
        path.touch(mode=0o600)
    outbox = await opener()
    with in_use.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        await outbox.append_left()
    assert [path.name for path in folder.iterdir()] == [in_use.name]


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
    outbox = await opener(retry_s=0.5)
    log = await outbox.open_stream(new_stream())
    async with Away(server):
        with pytest.raises(OutboxError):
            await log.append(run(1, 1, 1))
    assert list(folder.iterdir()) == []
    assert "events wait in memory only" in caplog.text
    assert "set outbox.spill.path" in caplog.text


IDENTITY = "the log's"
FRAMES = list(map(record, run(1, 1, 6)))


async def left_of(outbox: Outbox, folder: Path, last: int = 3) -> Path:
    """The file of a stream that a process which died has left."""
    stream = await outbox.open_stream(new_stream())
    return written(folder, await outbox.identity(), last, stream._fence)


def written(folder: Path, log: str = IDENTITY, last: int = 3, fence: int = 1) -> Path:
    file = SpillFolder(Spill(str(folder)), log).begin(Held(1, stream_id(1), fence, 0), FRAMES[:last])
    assert file is not None
    file.keep()
    return file.path


def records_left(folder: Path) -> list[Record]:
    """What is read of the files that were left; they are removed."""
    found: list[Record] = []
    for file in SpillFolder(Spill(str(folder)), IDENTITY).left():
        while records := file.read():
            found += records
        file.remove()
    return found


@contextmanager
def no_descriptor_left(folder: Path) -> Iterator[None]:
    """Nothing in the folder is open at the end of the block, whatever became of the files."""
    yield
    assert [name for name in map(target, Path("/proc/self/fd").iterdir()) if name.startswith(f"{folder}/")] == []


def target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # that of the listing itself
        return ""


def make_others_folder(path: Path) -> None:
    path.parent.chmod(0o755)


def make_readable(path: Path) -> None:
    path.chmod(0o644)


def make_second_name(path: Path) -> None:
    path.with_name("other").hardlink_to(path)


@pytest.mark.parametrize("change", [make_others_folder, make_readable, make_second_name])
async def test_a_file_that_others_may_have_written_is_not_appended(
    opener: Opener, folder: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    outbox = await opener()
    path = await left_of(outbox, folder)
    change(path)
    with no_descriptor_left(folder):
        for _ in range(3):
            await outbox.append_left()
    assert path.exists()
    assert await sequences(outbox) == []
    assert caplog.text.count("other users may") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_file_of_another_user_is_not_appended(opener: Opener, folder: Path) -> None:
    outbox = await opener()
    path = await left_of(outbox, folder)
    os.chown(path, 65534, 65534)
    await outbox.append_left()
    assert path.exists()
    assert await sequences(outbox) == []


@pytest.mark.parametrize(
    "first_line",
    [b"[]", b"1", b"null", b"{}", b"no JSON", b"\xff", b"[" * 4000, b'{"format": 1}', b"\0" * 600, b"x" * 5000],
    ids=lambda line: repr(line[:14]),
)
def test_a_file_without_a_header_is_set_aside(
    folder: Path, first_line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(folder)
    path.write_bytes(first_line + b"\n")
    with no_descriptor_left(folder):
        assert records_left(folder) == []
        assert records_left(folder) == []
    (kept,) = folder.iterdir()
    assert (kept.name, kept.stat().st_mode & 0o777) == (f"{path.name}.damaged", 0o600)
    assert caplog.text.count("was damaged") == 1


@pytest.mark.parametrize(("key", "value"), [("id", 5), ("sid", "x"), ("fence", 1 << 64), ("fence", 2), ("log", None)])
def test_a_header_with_other_values_is_of_no_stream(folder: Path, key: str, value: object) -> None:
    path = written(folder)
    line, _, records = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps(json.loads(line) | {key: value}).encode() + b"\n" + records)
    assert records_left(folder) == []
    assert not path.exists() or key == "log"


async def test_a_process_starts_and_sends_the_rest_beside_a_file_that_is_damaged(
    opener: Opener, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await opener()
    path = await left_of(outbox, folder)
    path.write_bytes(path.read_bytes() + b"\0" * 512)  # as after a power failure
    foreign = folder / "0.spill"
    foreign.write_bytes(b"[]\n")
    foreign.chmod(0o600)
    with no_descriptor_left(folder):
        for _ in range(2):
            await close_orphans_once(outbox, CLOCK)
    assert await sequences(outbox) == [1, 2, 3]
    assert sorted(each.name for each in folder.iterdir()) == ["0.spill.damaged", f"{path.name}.damaged"]
    assert caplog.text.count("was damaged") == 2


def framed(payload: bytes) -> bytes:
    return struct.pack(">II", len(payload), zlib.crc32(payload)) + payload


@pytest.mark.parametrize(
    "behind",
    [
        framed(b""),
        framed(b"no JSON"),
        framed(b"{}\x1e{}"),
        framed(b"[" * 100_000),
        framed(b'[0, 4, "evt", "a.b", "every", null, null, 1, null, false]\x1e{}'),
        framed(b'[0, "4", "evt", "a.b", "durable", null, null, 1, null, false]\x1e{}'),
        framed(b'[0, 4, "evt", ["a.b"], "durable", null, null, 1, null, false]\x1e{}'),
        framed(b'[0, 4, "\\ud800", "a.b", "durable", null, null, 1, null, false]\x1e{}'),
        framed(b'[0, 4, "evt", "a.b", "durable", null, 1e400, 1, null, false]\x1e{}'),
        framed(b'[0, 4, "evt", "a.b", "durable", null, null, 18446744073709551616, null, false]\x1e{}'),
        framed(b'[0, 4, "evt", "a.b", "durable", null, null, 1, null, false]\x1e\xff'),
        framed(b'[0, 4, "evt", "a.b", "durable", null, null, 1, null, false]\x1e\0'),
        framed(b'[0, 9, "evt", "a.b", "durable", null, null, 1, null, false]\x1e{}'),
        b"\xff" * 600,
    ],
    ids=lambda frame: repr(frame[8:40]),
)
def test_a_frame_that_nobody_wrote_is_damage_behind_the_others(folder: Path, behind: bytes) -> None:
    path = written(folder)
    path.write_bytes(path.read_bytes() + behind)
    assert records_left(folder) == FRAMES[:3]
    assert [each.name for each in folder.iterdir()] == [f"{path.name}.damaged"]


def test_a_length_that_reaches_over_the_next_records_is_damage(folder: Path) -> None:
    path = written(folder)
    whole = path.read_bytes()
    second = whole.index(FRAMES[0].body) + len(FRAMES[0].body)
    path.write_bytes(whole[:second] + struct.pack(">I", 100_000) + whole[second + 4 :])
    assert records_left(folder) == FRAMES[:1]
    assert [each.name for each in folder.iterdir()] == [f"{path.name}.damaged"]


def ends_of_records(whole: bytes) -> Sequence[int]:
    return [whole.index(each.body) + len(each.body) for each in FRAMES]


@settings(deadline=None)  # of files, on a busy machine
@given(at=st.floats(0, 1), removed=st.integers(0, 3000), put=st.binary(max_size=40) | st.integers(1, 4000).map(bytes))
def test_no_bytes_anywhere_raise_or_change_what_is_before_them(at: float, removed: int, put: bytes) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "spill"
        path = written(folder, last=6)
        whole = path.read_bytes()
        place = round(at * len(whole))
        path.write_bytes(whole[:place] + put + whole[place + removed :])
        with no_descriptor_left(folder):
            found = records_left(folder)
        before = sum(end <= place for end in ends_of_records(whole)) if place > whole.index(b"\n") else 0
        assert found[:before] == FRAMES[:before]
        assert found == FRAMES[: len(found)]
        assert list(folder.glob("*.spill")) == [] or place < whole.index(b"\n")


def test_the_file_of_another_log_is_left_to_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(folder, "another log's")
    whole = path.read_bytes()
    ours = SpillFolder(Spill(str(folder)), IDENTITY)
    with no_descriptor_left(folder):
        assert [*ours.left(), *ours.left()] == []
    assert path.read_bytes() == whole
    assert caplog.text.count("another outbox.url") == 1


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process can grow over this size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def reread(file: SpillFile) -> list[Record]:
    file.rewind(file.path.read_bytes().index(b"\n") + 1)
    return file.read()


@pytest.mark.parametrize("cut_off_at_once", [True, False])
def test_a_record_that_a_full_disk_cuts_off_is_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cut_off_at_once: bool
) -> None:
    file = SpillFolder(Spill(str(folder)), IDENTITY).begin(Held(1, stream_id(1), 1, 0), FRAMES[:1])
    assert file is not None
    with kept_at_the_end(file), monkeypatch.context() as patched:
        if not cut_off_at_once:
            patched.setattr(os, "ftruncate", broken_disk)
        with room_for(file.end + 100):
            assert not file.add(FRAMES[1:2])
        patched.undo()
        assert file.add(FRAMES[1:3])
        assert reread(file) == FRAMES[:3]


def broken_disk(*_: object) -> None:
    raise OSError(5, "Input/output error")


@contextmanager
def kept_at_the_end(file: SpillFile) -> Iterator[None]:
    try:
        yield
    finally:
        file.keep()


@pytest.mark.parametrize("room", [10, 200])
def test_a_file_that_a_full_disk_does_not_take_leaves_nothing(folder: Path, room: int) -> None:
    ours = SpillFolder(Spill(str(folder)), IDENTITY)
    held = Held(1, stream_id(1), 1, 0)
    with no_descriptor_left(folder):
        with room_for(room):
            assert ours.begin(held, FRAMES) is None
        assert list(folder.iterdir()) == []
    file = ours.begin(held, FRAMES)
    assert file is not None
    file.remove()


def test_a_folder_that_is_removed_meanwhile_is_told_and_counts(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = SpillFolder(Spill(str(folder), 20_000), IDENTITY)
    file = ours.begin(Held(1, stream_id(1), 1, 0), FRAMES[:1])
    assert file is not None
    shutil.rmtree(folder)
    ours._measured_at = None  # a second later
    assert file.add(FRAMES[1:3])
    assert caplog.text.count("was removed") == 1
    assert ours._size == file.end
    assert list(ours.left()) == []
    other = ours.begin(Held(2, stream_id(2), 1, 0), FRAMES[:1])
    assert other is not None
    other.remove()
    file.remove()
    assert list(folder.iterdir()) == []
