"""The doorbell: heard across processes at once, and never in anybody's way."""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from relay.errors import OutboxError
from relay.outbox.sqlite.doorbell import DatagramBell, DatagramDoorbell, directory
from tests.support.outbox_store import Store, durable, new_stream, sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite(tmp_path) as opened:
        yield opened


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files with a path that leaves room for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        yield Path(place)


class Heard:
    def __init__(self) -> None:
        self.streams: set[int] = set()
        self._rung = asyncio.Event()

    def __call__(self, streams: frozenset[int]) -> None:
        self.streams |= streams
        self._rung.set()

    async def wait(self, until: Callable[[set[int]], bool] = bool) -> set[int]:
        async with asyncio.timeout(5):
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
    await log.append([durable(1, 1)])
    for one in heard:
        (stream,) = await one.wait()
        assert await first.lanes.last_sequences([stream]) == {stream: 1}
    for bell in bells:
        bell.close()


async def test_a_commit_is_one_ring_however_many_streams_it_has(tmp_path: Path, store: Store) -> None:
    heard: list[frozenset[int]] = []
    done = asyncio.Event()

    def rung(streams: frozenset[int]) -> None:
        heard.append(streams)
        done.set()

    doorbell = DatagramDoorbell(tmp_path / "relay.db", rung)
    bell = DatagramBell(tmp_path / "relay.db")
    numbers = range(10**12, 10**12 + 512)
    bell.ring(numbers)
    await asyncio.wait_for(done.wait(), 5)
    assert heard == [frozenset(numbers)]
    bell.close()
    doorbell.close()


async def test_a_listener_that_does_not_listen_keeps_nobody_waiting(tmp_path: Path, store: Store) -> None:
    doorbell = DatagramDoorbell(tmp_path / "relay.db", Heard())
    bell = DatagramBell(tmp_path / "relay.db")
    for _ in range(2_000):  # the loop has no turn meanwhile: its buffer fills up
        bell.ring(range(512))
    bell.close()
    doorbell.close()


async def test_the_socket_of_a_process_that_died_is_cleared_away(tmp_path: Path, store: Store) -> None:
    place = directory(tmp_path / "relay.db")
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(place / "1-dead"))
    dead.close()
    bell = DatagramBell(tmp_path / "relay.db")
    bell.ring([1])
    assert list(place.iterdir()) == []
    bell.ring([1])
    bell.close()


async def test_a_closed_doorbell_leaves_nothing_behind_and_may_be_closed_again(tmp_path: Path, store: Store) -> None:
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
