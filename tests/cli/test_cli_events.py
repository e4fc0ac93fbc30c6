"""``events``: what the log holds."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.clock import SystemClock
from tests.support.builders import interim, overlap, own, said, track
from tests.support.cli import environment
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_situation import event
from tests.support.outbox.outbox_store import Store, sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite(tmp_path) as opened:
        opened.clock.at = SystemClock().now_ms()
        yield opened


async def some_events(store: Store) -> None:
    outbox, now = await store.open(), store.clock.at
    alice, bob = await outbox.open_stream(track(1, "alice")), await outbox.open_stream(track(2, "bob", "lobby"))
    room = await outbox.open_stream(own(3))
    await alice.append([said(1, 1, "alice", "hello \x1b[2J there", at=now - 7_200_000)])
    await bob.append([said(2, 1, "bob", "good morning", at=now - 1000)])
    await room.append([overlap(3, 1, "alice", "bob", at=now)])


async def test_the_newest_come_first_with_their_json(store: Store, tmp_path: Path) -> None:
    await some_events(store)
    folder = Folder(tmp_path)
    found = (await folder.json("events"))["events"]
    assert [(each["type"], each["participant"]) for each in found] == [
        ("overlap.started", ""),
        ("transcript.final", "bob"),
        ("transcript.final", "alice"),
    ]
    assert found[1]["event"]["data"]["text"] == "good morning"
    assert (found[2]["id"], found[2]["room"], found[2]["sequence"]) == (event(1), "room", 1)


async def test_they_are_found_by_room_participant_type_and_time(store: Store, tmp_path: Path) -> None:
    await some_events(store)
    folder = Folder(tmp_path)
    for arguments, ids in (
        (["--room", "lob*"], ["bob"]),
        (["--participant", "a*"], ["alice"]),
        (["--type", "transcript.*", "--since", "1h"], ["bob"]),
        (["--type", "overlap.*"], [""]),
        (["--limit", "1"], [""]),
        (["--limit", "9" * 30], ["", "bob", "alice"]),
    ):
        assert [each["participant"] for each in (await folder.json("events", *arguments))["events"]] == ids
    wrong = await folder.run("events", "--type", "transcript.finale")
    assert wrong.returncode == 2
    assert "did you mean transcript.final?" in wrong.stderr


async def test_what_was_said_cannot_command_the_terminal(store: Store, tmp_path: Path) -> None:
    await some_events(store)
    shown = (await Folder(tmp_path).run("events", "list")).stdout
    assert r"hello \x1b[2J there" in shown
    assert "\x1b" not in shown


async def test_one_event_is_shown_as_it_stands_in_the_log(store: Store, tmp_path: Path) -> None:
    await some_events(store)
    shown = await Folder(tmp_path).run("events", "show", event(1))
    assert json.loads(shown.stdout)["participant"]["identity"] == "alice"
    gone = await Folder(tmp_path).run("events", "show", event(2))
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == f"{event(2)}: the log has no such event\n"


async def test_an_interim_that_is_over_has_no_content_left(store: Store, tmp_path: Path) -> None:
    outbox = await store.open()
    alice = await outbox.open_stream(track(1, "alice"))
    await alice.append([interim(1, 1, revision=1, at=store.clock.at - 600_000)])
    await outbox.retention(10**9).prune()
    folder = Folder(tmp_path)
    assert [each["event"] for each in (await folder.json("events"))["events"]] == [None]
    shown = await folder.run("events", "show", event(1))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "its content is gone" in shown.stderr


async def test_events_are_told_as_they_are_appended(store: Store, tmp_path: Path) -> None:
    outbox = await store.open()
    alice = await outbox.open_stream(track(1, "alice"))
    Folder(tmp_path)
    tailing = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "events", "tail", "--type", "transcript.final",
        cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert tailing.stdout is not None
    told = b""
    async with asyncio.timeout(30):
        sequence = 0
        while not told:  # the tail begins where the log ends when it is started, which nobody announces
            sequence += 1
            await alice.append([said(1, sequence, "alice", "hello")])
            try:
                async with asyncio.timeout(0.5):
                    told = await tailing.stdout.readline()
            except TimeoutError:
                continue
        tailing.send_signal(signal.SIGTERM)
        assert await tailing.wait() == 0
    assert told.decode().split()[2:] == ["room", "alice", "transcript.final", "hello"]
