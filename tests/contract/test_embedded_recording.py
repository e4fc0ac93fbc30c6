"""A track of an agent's own session over the real log: nothing of it is lost before the log is open."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.clock import SystemClock
from relay.config.load import load
from relay.config.models import Speech
from relay.embedded import background
from relay.embedded import recording as embedded_recording
from relay.embedded.background import Background
from relay.embedded.recording import HeardTrack, Recording, SessionDetectors
from relay.errors import OutboxError
from relay.events.catalog import parse
from relay.events.detectors import VadSpeechStarted
from relay.events.stream import StreamEnded, StreamStarted
from relay.outbox.outbox import Outbox
from relay.recording.recorder import Records, StreamRecord, tracker_settings
from relay.speech.context import StreamContext
from relay.speech.observations import Ended, Muted, SourceDown, Unmuted, VadEnded, VadStarted
from tests.support.builders import ALICE, ROOM
from tests.support.livekit.embedding import configured

HEARD = HeardTrack(
    room=ROOM,
    participant=ALICE,
    track_sid="TR_1",
    track_source="microphone",
    subscribed_at=1_760_000_000_000,
    joined_at=None,
    muted=False,
    detectors=SessionDetectors(vad="silero", stt=None, realtime=None),
)


class SeenRecords(Records):
    """Records that remember which streams they opened, and refuse as often as they are told to."""

    refusals = 0

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox, SystemClock(), tracker_settings(Speech()))
        self.opened: list[str] = []
        self.refused = asyncio.Event()

    async def open(self, context: StreamContext) -> StreamRecord | None:
        if self.refusals:
            self.refusals -= 1
            self.refused.set()
            return None
        self.opened.append(context.stream_id)
        return await super().open(context)


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    opened = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="agent-0", clock=SystemClock())
    yield opened
    await opened.aclose()


async def test_a_session_that_ended_before_the_log_was_open_is_written_to_its_end(outbox: Outbox) -> None:
    recording = Recording(HEARD, 500, lambda: 2_500)
    recording.report(VadStarted(onset_ms=700, speech_ms=100, probability=0.9))
    recording.report(VadEnded(end_ms=1_500, reason="silence"))
    recording.report(Ended("disconnected", heard_ms=2_000))
    recording.report(Muted())
    records = SeenRecords(outbox)
    async with asyncio.timeout(30):
        await recording.run(records, SystemClock())
    (stream,) = records.opened
    events = [parse(record.body) for record in await outbox.history(stream)]
    assert [event.type for event in events] == [
        "stream.started",
        "vad.speech_started",
        "speech.started",
        "vad.speech_ended",
        "speech.ended",
        "utterance.completed",
        "stream.ended",
    ]
    assert isinstance(events[-1], StreamEnded)
    assert (events[-1].data.reason, events[-1].data.heard_ms) == ("disconnected", 2_000)
    assert isinstance(events[1], VadSpeechStarted)
    assert events[1].timing.media_start_ms == 200, "from the beginning of the track"


async def test_a_stream_that_begins_late_begins_with_what_lasts(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_recording, "RETRY_S", 0.02)
    recording = Recording(HEARD, 0, lambda: 9_000)
    records = SeenRecords(outbox)
    records.refusals = 2
    running = asyncio.create_task(recording.run(records, SystemClock()))
    recording.report(SourceDown("vad", "lost", 1_760_000_000_500))
    recording.report(VadStarted(onset_ms=700, speech_ms=100, probability=0.9))
    recording.report(Muted())
    async with asyncio.timeout(30):
        while not records.opened:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        recording.report(Unmuted())
        recording.report(Ended("unpublished", heard_ms=9_500))
        await running
    events = [parse(record.body) for record in await outbox.history(records.opened[0])]
    assert [event.type for event in events] == [
        "stream.started",
        "source.failed",
        "microphone.unmuted",
        "stream.ended",
    ]
    assert isinstance(events[0], StreamStarted)
    assert events[0].data.muted


async def test_a_log_that_is_back_as_the_job_ends_has_the_whole_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "RETRY_S", 3600)
    monkeypatch.setattr(background, "SENDING_SHARE", 1)
    opens, tries = Outbox.open, 0

    async def away(*args: Any, **options: Any) -> Outbox:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise OutboxError("the server is away")
        return await opens(*args, **options)

    monkeypatch.setattr(Outbox, "open", away)
    recorder = Background(load(configured(tmp_path), environ={}), SystemClock(), deliver=False, grace_s=60)
    recorder.start()
    recording = Recording(HEARD, 0, lambda: 2_000)
    recorder.record(recording)
    recording.report(Ended("disconnected", heard_ms=2_000))
    await recorder.aclose()
    with closing(sqlite3.connect(tmp_path / "relay.db")) as log:
        assert [row[0] for row in log.execute("SELECT type FROM events ORDER BY sequence")] == [
            "stream.started",
            "stream.ended",
        ]
