"""Other users of the machine can neither read the log nor hold its locks."""

import asyncio
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.errors import OutboxError
from relay.outbox.outbox import Outbox
from relay.private_files import create_private, exposed, give_to_owner_of, open_private
from tests.support.builders import durable, new_stream
from tests.support.outbox.outbox_store import HandClock, sqlite

PARTS = ("", "-wal", "-shm", ".lock", ".relay")

NOBODY: Any = {"user": 65534, "group": 65534, "extra_groups": []}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    """What a shell has, as in a process that embeds the relay."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_no_file_of_the_log_and_not_its_folder_is_open_to_others(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "var") as store:
        outbox = await store.open("relay", sole=True)
        log = await outbox.open_stream(new_stream())
        await log.append([durable(1, 1)])
        assert {part: mode(tmp_path / f"var/relay.db{part}") for part in PARTS} == dict.fromkeys(PARTS, 0o600), (
            "the log's files must be private to this user"
        )
        assert mode(tmp_path / "var") == 0o700, "the log's folder must be private to this user"


async def test_files_that_an_earlier_version_left_open_are_tightened_at_start(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    async with sqlite(folder) as store:
        first = await store.open("relay", sole=True)
        log = await first.open_stream(new_stream())
        await log.append([durable(1, 1)])
        for part in PARTS:
            (folder / f"relay.db{part}").chmod(0o644)
        folder.chmod(0o755)
        await first.aclose()
        for part in {".lock", ".relay"}:
            assert mode(folder / f"relay.db{part}") == 0o644
        await store.open("relay")
        second = await store.open("other", sole=True)
        second._database.reserve("relay")
        assert {mode(each) for each in folder.iterdir()} == {0o600}, (
            "files that an earlier version left open must be made private"
        )
        assert mode(folder) == 0o700


@as_root
async def test_what_root_makes_beside_a_users_log_is_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    async with sqlite(folder) as store:
        await (await store.open("relay", sole=True)).aclose()
        for part in {".lock", ".relay"}:
            (folder / f"relay.db{part}").unlink()
        for path in (folder, folder / "relay.db"):
            os.chown(path, 65534, 65534)
        await store.open("relay", sole=True)
        assert {each.name: each.stat().st_uid for each in folder.iterdir()} == {
            f"relay.db{part}": 65534 for part in PARTS
        }, "the relay, as that user, could not open it"


@as_root
def test_root_gives_away_no_file_that_holds_something_or_has_another_name(tmp_path: Path) -> None:
    log, full, linked = tmp_path / "relay.db", tmp_path / "relay.db.full", tmp_path / "relay.db.linked"
    log.touch()
    os.chown(log, 65534, 65534)
    full.write_text("of root")
    linked.touch()
    (tmp_path / "other").hardlink_to(linked)
    for path in (full, linked):
        with path.open("ab") as file:
            give_to_owner_of(log, file.fileno())
        assert path.stat().st_uid == 0


async def test_a_folder_that_holds_other_files_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir(mode=0o755)
    (tmp_path / "var/notes.txt").touch()
    async with sqlite(tmp_path / "var") as store:
        await store.open()
        assert mode(tmp_path / "var") == 0o755
        assert mode(tmp_path / "var/relay.db") == 0o600


@as_root
async def test_another_user_cannot_open_a_lock_to_freeze_the_relay(tmp_path: Path) -> None:
    folder = Path(tempfile.gettempdir()) / f"relay-locks-{os.getpid()}"
    async with sqlite(folder) as store:
        await store.open("relay", sole=True)
        folder.chmod(0o755)  # the worst case: a folder that everybody may enter
        names = [str(path) for path in folder.iterdir()]
        assert len(names) >= 3
        each = 'for name in "$@"; do true <"$name" || echo refused; done'
        tried = await asyncio.to_thread(
            lambda: subprocess.run(["sh", "-c", each, "-", *names], **NOBODY, capture_output=True, text=True)
        )
        assert tried.stdout.split() == ["refused"] * len(names), tried.stderr
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("part", ["", "-wal", ".lock", ".relay"])
async def test_a_link_in_place_of_a_file_of_the_log_is_not_followed(tmp_path: Path, part: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    (tmp_path / f"relay.db{part}").symlink_to(victim)
    with pytest.raises(OutboxError, match=f"relay.db{part} is a symbolic link: name the file itself"):
        await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="relay", clock=HandClock(), sole=True)
    assert (victim.read_text(), mode(victim)) == ("precious", 0o644), "a link must not be followed to another file"


@as_root
async def test_a_file_that_another_user_left_in_a_shared_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "relay.db.lock").touch()
    os.chown(tmp_path / "relay.db.lock", 65534, 65534)
    cure = "run this as that user, or change its owner"
    with pytest.raises(OutboxError, match=rf"relay\.db\.lock belongs to another user: {cure}"):
        await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="relay", clock=HandClock())


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match=r"(not a regular file|No such device)"):
        open_private(tmp_path / "lock", os.O_WRONLY)


def test_tightening_a_file_keeps_the_locks_that_this_process_has_on_it(tmp_path: Path) -> None:
    (tmp_path / "relay.db").touch(0o644)
    with (tmp_path / "relay.db").open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        create_private(tmp_path / "relay.db")
        script = "import sys, fcntl\nfcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        tried = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "relay.db")], capture_output=True, text=True
        )
        assert "BlockingIOError" in tried.stderr
    assert mode(tmp_path / "relay.db") == 0o600


@pytest.mark.parametrize(
    ("bits", "seen"), [(0o600, False), (0o640, True), (0o604, True), (0o620, True), (0o700, False)]
)
def test_what_others_may_read_or_write_is_exposed(tmp_path: Path, bits: int, seen: bool) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(bits)
    assert exposed(tmp_path / "file") is seen


@as_root
def test_a_secret_that_is_mounted_for_a_group_is_not_exposed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 65534, os.getgid())
    (tmp_path / "file").chmod(0o440)
    assert not exposed(tmp_path / "file")
    (tmp_path / "file").chmod(0o444)
    assert exposed(tmp_path / "file")
