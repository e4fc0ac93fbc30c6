"""Rooms' own streams in the log: opened for the first overlap, closed with the listening, one writer at a time."""

import asyncio
import logging
from typing import NoReturn

import pytest
import sqlalchemy as sa

from relay.app.orphans import close_orphans_once
from relay.config.capture import Capture
from relay.config.models import Speech
from relay.events.catalog import parse
from relay.events.envelope import RoomRef
from relay.events.speech import OverlapEnded, OverlapStarted
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream
from relay.recording import overlaps as module
from relay.recording.overlaps import Overlaps
from tests.support.audio.overlaps import ROOM, T0, speech_event, stream_event, told
from tests.support.audio.overlaps import Speech as Said
from tests.support.outbox.outbox_store import Store, until

ALICE, BOB = Said("alice", "utt_a", 0, 5000), Said("bob", "utt_b", 1000, 3000)


@pytest.fixture
def store(store: Store) -> Store:
    store.clock.at = T0
    return store


def watching(outbox: Outbox, store: Store) -> Overlaps:
    return Overlaps(outbox, store.clock, capture=Capture(), speech=Speech())


def play(overlaps: Overlaps, store: Store, *said: Said, room: RoomRef = ROOM) -> None:
    """Everybody's stream begins, and what is said is told."""
    for who in {one.who for one in said}:
        overlaps.take(stream_event(who, room=room))
    for at, event in told(said):
        store.clock.at = at
        overlaps.take(event.model_copy(update={"room": room}))


def room_streams(store: Store) -> list[tuple[str, str, bool]]:
    """(id, room sid, closed) of the rooms' own streams."""
    # not through the outbox: it answers on its own event loop only
    engine = sa.create_engine(store.url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
    streams = "SELECT id, room_sid, closed_at FROM streams WHERE track_sid = '' ORDER BY sid"
    with engine.connect() as connection:
        return [(name, sid, closed is not None) for name, sid, closed in connection.execute(sa.text(streams))]


async def types(outbox: Outbox, stream: str) -> list[str]:
    return [f"{record.sequence} {record.type}" for record in await outbox.history(stream)]


async def test_a_room_has_a_stream_from_its_first_overlap_until_nobody_is_listened_to(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    overlaps = watching(outbox, store)
    play(overlaps, store, Said("alice", "utt_1", 0, 1000), Said("bob", "utt_2", 2000, 2900))
    assert room_streams(store) == [], "nobody spoke at once"
    play(overlaps, store, Said("alice", "utt_3", 4000, 9000), Said("bob", "utt_4", 5000, 6000))
    await until(lambda: room_streams(store) != [])
    (stream,) = [name for name, *_ in room_streams(store)]
    overlaps.take(stream_event("alice", ends=True))
    assert room_streams(store) == [(stream, "RM_x", False)], "Bob is still listened to"
    overlaps.take(stream_event("bob", ends=True))
    await until(lambda: room_streams(store) == [(stream, "RM_x", True)])
    assert await types(outbox, stream) == ["1 overlap.started", "2 overlap.ended"]
    started, ended = [parse(record.body) for record in await outbox.history(stream)]
    assert isinstance(started, OverlapStarted)
    assert isinstance(ended, OverlapEnded)
    assert ended.data.duration_ms == 1000
    assert started.stream.id == ended.stream.id == stream
    (lane,) = await outbox.lanes.claim({"crm": 9}, lease_ms=1000)
    assert (lane.room, lane.participant) == ("support-42", ""), (
        "an endpoint for some participants alone does not get it"
    )
    await overlaps.aclose()


async def test_each_room_sid_has_its_own(store: Store) -> None:
    outbox = await store.open()
    overlaps = watching(outbox, store)
    play(overlaps, store, ALICE, BOB)
    play(overlaps, store, ALICE, BOB, room=RoomRef(sid="RM_y", name="support-42"))
    await overlaps.aclose()
    assert [(sid, closed) for _, sid, closed in room_streams(store)] == [("RM_x", True), ("RM_y", True)]
    for stream, *_ in room_streams(store):
        assert await types(outbox, stream) == ["1 overlap.started", "2 overlap.ended"]


async def test_a_job_that_ends_in_mid_overlap_ends_it(store: Store) -> None:
    outbox = await store.open()
    overlaps = watching(outbox, store)
    play(overlaps, store, Said("alice", "utt_a", 0), Said("bob", "utt_b", 1000), Said("bob", "utt_b", 3000))
    await overlaps.aclose()
    ((stream, _, closed),) = room_streams(store)
    assert closed
    last = parse((await outbox.history(stream))[-1].body)
    assert isinstance(last, OverlapEnded)
    assert last.data.reason == "shutdown"


@pytest.mark.parametrize("set_by", [-3_600_000, 3_600_000])
async def test_an_overlap_lasts_as_long_as_it_lasts_whatever_the_clock_says(store: Store, set_by: int) -> None:
    outbox = await store.open()
    overlaps = watching(outbox, store)
    play(overlaps, store, Said("alice", "utt_a", 0), Said("bob", "utt_b", 1000))
    store.clock.at, store.clock.set_by = T0 + 3000, set_by
    overlaps.take(speech_event(Said("bob", "utt_b", 1000, 3000 + set_by), ends=True))
    store.clock.at = T0 + 4000
    overlaps.take(stream_event("bob"))
    await overlaps.aclose()
    ((stream, *_),) = room_streams(store)
    ended = parse((await outbox.history(stream))[-1].body)
    assert isinstance(ended, OverlapEnded)
    assert ended.data.duration_ms == 2000


async def test_a_stream_that_another_writer_has_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    theirs = await (await store.open("theirs")).open_stream(NewStream("str_theirs", "RM_x", "support-42", "", ""))
    outbox = await store.open()
    overlaps = watching(outbox, store)
    play(overlaps, store, ALICE, BOB)
    await asyncio.sleep(0.05)
    assert [name for name, *_ in room_streams(store)] == ["str_theirs"]
    await theirs.abandon()
    await overlaps.aclose()
    assert await types(outbox, room_streams(store)[1][0]) == ["1 overlap.started", "2 overlap.ended"]


@pytest.mark.parametrize("patience", [0.0, 60.0])
async def test_a_stream_that_stays_another_writers_is_left_to_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, patience: float
) -> None:
    caplog.set_level(logging.INFO, logger="relay.recording.overlaps")
    monkeypatch.setattr(module, "_HELD_AT_MOST_S", patience)
    await (await store.open("theirs")).open_stream(NewStream("str_theirs", "RM_x", "support-42", "", ""))
    overlaps = watching(await store.open(), store)
    play(overlaps, store, ALICE, BOB)
    async with asyncio.timeout(30):
        await overlaps.aclose(within=0.1)
    assert [name for name, *_ in room_streams(store)] == ["str_theirs"]
    (message,) = (record.getMessage() for record in caplog.records)
    assert ("another process" in message) == (patience == 0)


async def test_a_bug_that_ends_the_recording_of_overlaps_is_told_without_what_was_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def open_stream(self, stream: NewStream) -> NoReturn:
            raise LookupError("alice: my number is 4711")

    overlaps = Overlaps(Broken(), store.clock, capture=Capture(), speech=Speech())
    play(overlaps, store, ALICE, BOB)
    await overlaps.aclose()
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(
        "overlapping speech in room RM_x can no longer be recorded: LookupError at test_overlaps.py:"
    )
    assert "4711" not in caplog.text


async def test_a_writer_that_dies_in_mid_overlap_has_it_ended_once(store: Store) -> None:
    dying, outbox = await store.open("dying"), await store.open("relay")
    overlaps = watching(dying, store)
    play(overlaps, store, Said("alice", "utt_a", 0), Said("bob", "utt_b", 1000), Said("bob", "utt_b", 3000))
    await until(lambda: room_streams(store) != [])
    ((stream, _, closed),) = room_streams(store)
    assert not closed
    await until_history(outbox, stream)
    store.clock.at += 60_000
    await close_orphans_once(outbox, store.clock)
    await close_orphans_once(outbox, store.clock)
    assert room_streams(store) == [(stream, "RM_x", True)], "the room's stream must be closed"
    assert await types(outbox, stream) == ["1 overlap.started", "2 overlap.ended"]
    last = parse((await outbox.history(stream))[-1].body)
    assert isinstance(last, OverlapEnded)
    assert (last.data.reason, last.data.duration_ms) == ("worker_lost", None)
    await overlaps.aclose()
    assert await types(outbox, stream) == ["1 overlap.started", "2 overlap.ended"], "the dead writer is fenced"


async def test_a_writer_that_dies_between_overlaps_leaves_a_stream_that_is_only_closed(store: Store) -> None:
    dying, outbox = await store.open("dying"), await store.open("relay")
    overlaps = watching(dying, store)
    play(overlaps, store, ALICE, BOB, Said("carol", "utt_c", 9000))
    await until(lambda: room_streams(store) != [])
    ((stream, *_),) = room_streams(store)
    await until_history(outbox, stream, length=2)
    store.clock.at += 60_000
    await close_orphans_once(outbox, store.clock)
    assert room_streams(store) == [(stream, "RM_x", True)], "the room's stream must be closed"
    assert await types(outbox, stream) == ["1 overlap.started", "2 overlap.ended"]
    await overlaps.aclose()


async def test_events_of_a_room_that_nobody_is_listened_to_in_are_nothing(store: Store) -> None:
    overlaps = watching(await store.open(), store)
    overlaps.take(speech_event(ALICE))
    await overlaps.aclose()
    assert room_streams(store) == []


async def until_history(outbox: Outbox, stream: str, *, length: int = 1) -> None:
    async with asyncio.timeout(30):
        while len(await outbox.history(stream)) < length:  # noqa: ASYNC110 - nobody announces a commit to the test
            await asyncio.sleep(0)
