"""``purge``: asks, removes, and says what was removed."""

from pathlib import Path

import pytest

from tests.support.builders import ended, overlap, own, said, stream_id, track
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_store import Store


async def test_it_says_what_was_removed_and_what_is_still_open(store: Store, tmp_path: Path) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    first, second = await outbox.open_stream(track(1, "alice")), await outbox.open_stream(track(2, "alice"))
    await first.append([said(1, 1, "alice", "hello"), ended(1, 2)])
    await second.append([said(2, 1, "alice", "hello again")])
    await (await outbox.open_stream(own(3))).append([overlap(3, 1, "alice", "bob")])
    folder = Folder(tmp_path)
    done = await folder.run("purge", "--participant", "alice", "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "Removed 3 events of 1 streams that had ended and of 1 that are open,",
        "1 overlaps that named the participant, 0 parked and dead deliveries, 0 records of attempts.",
        "1 are still being recorded: what comes on them from now on is kept. Run this again after the call.",
    ]
    await second.append([ended(2, 2)])
    assert await folder.json("purge", "--participant", "alice", "--yes") == {
        "streams": 1,
        "open_streams": 0,
        "events": 2,
        "overlaps": 0,
        "set_aside": 0,
        "attempts": 0,
        "overwritten": True,
    }
    assert await outbox.history(stream_id(2)) == []


@pytest.mark.parametrize("which", [("--participant", "Alice"), ("--room", "rooms")])
async def test_a_name_that_the_log_does_not_have_exits_1(store: Store, tmp_path: Path, which: tuple[str, str]) -> None:
    outbox = await store.open()
    await (await outbox.open_stream(track(1, "alice"))).append([said(1, 1, "alice", "hello")])
    folder = Folder(tmp_path)
    done = await folder.run("purge", *which, "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the log holds nothing of {which[0][2:]} {which[1]}" in done.stderr
    assert (await folder.json("purge", *which, "--yes", code=1))["streams"] == 0
    assert len(await outbox.history(stream_id(1))) == 1


async def test_nothing_is_removed_unasked(store: Store, tmp_path: Path) -> None:
    outbox = await store.open()
    await (await outbox.open_stream(track(1, "alice"))).append([said(1, 1, "alice", "hello")])
    folder = Folder(tmp_path)
    for arguments in (["--room", "room"], [], ["--room", "room", "--participant", "alice", "--yes"]):
        done = await folder.run("purge", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
    assert (await folder.run("purge", "--room", "room")).stderr == "Error: not a terminal: pass --yes\n"
    assert len(await outbox.history(stream_id(1))) == 1
