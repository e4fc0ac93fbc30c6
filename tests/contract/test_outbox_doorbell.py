"""The doorbell: heard across processes at once, and never in anybody's way."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from relay.errors import OutboxError
from relay.outbox.records import Growth, record
from relay.outbox.sqlite.doorbell import DatagramBell, DatagramDoorbell, directory
from tests.support.builders import durable, interim, new_stream
from tests.support.outbox.outbox_store import Store


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files with a path that leaves room for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        yield Path(place)


class Heard:
    def __init__(self) -> None:
        self.streams: set[int] = set()
        self.rings: list[Growth] = []
        self._rung = asyncio.Event()

    def __call__(self, growth: Growth) -> None:
        self.streams |= growth.keys()
        self.rings.append(growth)
        self._rung.set()

    async def wait(self, until: Callable[[set[int]], bool] = bool) -> set[int]:
        async with asyncio.timeout(30):
            while not until(self.streams):
                self._rung.clear()
                await self._rung.wait()
        return self.streams


async def test_an_append_is_heard_by_every_listener_after_its_commit(store: Store) -> None:
    writer, first, second = [await store.open(name) for name in ("a", "b", "c")]
    await first.lanes.sync_endpoints(["crm"])
    heard = [Heard(), Heard()]
    bells = [outbox.listen(one) for outbox, one in zip((first, second), heard, strict=True)]
    log = await writer.open_stream(new_stream())
    await log.append([durable(1, 1), durable(1, 2)])
    for one in heard:
        (stream,) = await one.wait()
        assert await first.lanes.last_sequences([stream]) == {stream: 2}
        bears = await first.lanes.read(stream, 0, 10) if store.kind == "sqlite" else []
        assert one.rings == [{stream: bears}], "what a read would find, or nothing"
    for bell in bells:
        bell.close()


async def rung(database: Path, growth: Growth, *messages: bytes) -> Growth:
    """What a listener hears of a ring, behind messages of somebody else's."""
    heard = Heard()
    doorbell, bell = DatagramDoorbell(database, heard), DatagramBell(database)
    (listener,) = directory(database).iterdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        for message in messages:
            other.sendto(message, str(listener))
    bell.ring(growth)
    await heard.wait()
    bell.close()
    doorbell.close()
    (said,) = heard.rings
    return said


async def test_a_commit_is_one_ring_however_many_streams_it_has(tmp_path: Path, short: Path) -> None:
    growth: Growth = {stream: [] for stream in range(10**12, 10**12 + 512)}
    assert await rung(tmp_path / "relay.db", growth) == growth


async def test_a_ring_bears_the_records_of_each_stream(tmp_path: Path, short: Path) -> None:
    last = record(durable(2, 3))._replace(closes=True, body='{"text": "\\u001e ü"}'.encode())
    growth = {1: [record(durable(1, 1)), record(interim(1, 2, revision=1))], 2: [last], 3: []}
    assert await rung(tmp_path / "relay.db", growth) == growth


@pytest.mark.parametrize("length", [70_000, 65_400])
async def test_of_much_the_streams_alone_are_rung_for(tmp_path: Path, short: Path, length: int) -> None:
    growth = {1: [record(durable(1, 1))], 2: [record(durable(2, 1))._replace(body=b"x" * length)]}
    assert await rung(tmp_path / "relay.db", growth) == {1: [], 2: []}


async def test_where_datagrams_are_shorter_the_streams_alone_are_rung_for(tmp_path: Path, short: Path) -> None:
    heard = Heard()
    doorbell, bell = DatagramDoorbell(tmp_path / "relay.db", heard), DatagramBell(tmp_path / "relay.db")
    bell.ring({})
    for own in bell._sockets.values():
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    bell.ring({1: [record(durable(1, 1, size=30_000))]})
    await heard.wait()
    bell.close()
    doorbell.close()
    assert heard.rings == [{1: []}]


@pytest.mark.parametrize(
    "message",
    [b"12\n13", b"", b"\xff", b"[]", b"[[1], [[1]]]\x1e{}", b'[[1], [["a"]]]', b"[[1], [[2, 1]]]\x1e{}", b"[1, 2]"],
)
async def test_what_another_version_rings_is_left_to_the_sweep(tmp_path: Path, short: Path, message: bytes) -> None:
    assert await rung(tmp_path / "relay.db", {7: []}, message) == {7: []}


async def test_a_listener_that_does_not_listen_keeps_nobody_waiting(tmp_path: Path, short: Path) -> None:
    doorbell = DatagramDoorbell(tmp_path / "relay.db", Heard())
    bell = DatagramBell(tmp_path / "relay.db")
    for _ in range(2_000):  # the loop has no turn meanwhile: its buffer fills up
        bell.ring({stream: [] for stream in range(512)})
    bell.close()
    doorbell.close()


async def test_a_listener_that_hangs_takes_nothing_from_the_others(tmp_path: Path, short: Path) -> None:
    place = directory(tmp_path / "relay.db")
    with ExitStack() as stack:
        for name in ("0-hangs", "z-hangs"):  # wherever it stands in the directory
            hanging = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            hanging.bind(str(place / name))
        heard = Heard()
        doorbell, bell = DatagramDoorbell(tmp_path / "relay.db", heard), DatagramBell(tmp_path / "relay.db")
        for sequence in range(1, 41):
            bell.ring({1: [record(durable(1, sequence, size=30_000))]})
            while len(heard.rings) < sequence:
                heard.streams.clear()
                await heard.wait()
        bell.close()
        doorbell.close()


async def test_many_listeners_all_hear_a_long_ring(tmp_path: Path, short: Path) -> None:
    every = [Heard() for _ in range(32)]
    doorbells = [DatagramDoorbell(tmp_path / "relay.db", heard) for heard in every]
    bell = DatagramBell(tmp_path / "relay.db")
    bell.ring({1: [record(durable(1, 1, size=30_000))]})
    for heard in every:
        await heard.wait()
    for doorbell in doorbells:
        doorbell.close()
    bell.ring({1: []})
    assert not bell._sockets, "nor is a socket kept for who has gone"
    bell.close()


async def test_rings_are_heard_one_by_one(tmp_path: Path, short: Path) -> None:
    """Of two together nobody could tell that one in between was lost, or that something has to be read."""
    heard = Heard()
    doorbell, bell = DatagramDoorbell(tmp_path / "relay.db", heard), DatagramBell(tmp_path / "relay.db")
    rings: list[Growth] = [{1: [record(durable(1, 1))]}, {1: []}, {1: [record(durable(1, 3))]}]
    for growth in rings:
        bell.ring(growth)
    await heard.wait(lambda _: len(heard.rings) == 3)
    bell.close()
    doorbell.close()
    assert heard.rings == rings


async def test_the_socket_of_a_process_that_died_is_cleared_away(tmp_path: Path, short: Path) -> None:
    place = directory(tmp_path / "relay.db")
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(place / "1-dead"))
    dead.close()
    bell = DatagramBell(tmp_path / "relay.db")
    bell.ring({1: []})
    assert list(place.iterdir()) == []
    bell.ring({1: []})
    bell.close()


async def test_a_closed_doorbell_leaves_nothing_behind_and_may_be_closed_again(tmp_path: Path, short: Path) -> None:
    doorbell = DatagramDoorbell(tmp_path / "relay.db", Heard())
    place = directory(tmp_path / "relay.db")
    assert len(list(place.iterdir())) == 1
    doorbell.close()
    doorbell.close()
    assert list(place.iterdir()) == []


def test_the_socket_is_short_wherever_the_database_and_temporary_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + "long/" * 30)
    place = directory(Path("/a" * 300))
    assert len(str(place / "4194304-01234567")) < 104
    with suppress(OSError):
        place.rmdir()


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path, short: Path) -> None:
    (short / f"speech-relay-{os.getuid()}").mkdir(mode=0o777)
    (short / f"speech-relay-{os.getuid()}").chmod(0o777)
    with pytest.raises(OutboxError, match="only this user"):
        directory(tmp_path / "relay.db")


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path, short: Path) -> None:
    (short / f"speech-relay-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(OutboxError, match="only this user"):
        directory(tmp_path / "relay.db")


def test_a_place_for_temporary_files_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(OutboxError, match="/nowhere"):
        directory(tmp_path / "relay.db")
