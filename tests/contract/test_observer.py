"""An observed track over the real log: one record at a time, and another once the log has failed and is back."""

import asyncio
from pathlib import Path

import pytest

from relay.app.orphans import close_orphans_once
from relay.capture.observe import recording as observed
from relay.capture.observe.recording import ObservedStream, ObservedTrack
from relay.clock import SystemClock
from relay.config.models import Speech
from relay.outbox.outbox import Outbox
from relay.outbox.sqlite import write_lock as turn
from relay.outbox.sqlite.write_lock import WriteLock
from relay.recording.recorder import Records, StreamRecord, tracker_settings
from relay.recording.track import Observers
from relay.speech.observations import StateChanged
from tests.support.builders import ALICE, ROOM
from tests.support.outbox.outbox_store import until

TRACK = ObservedTrack(
    room=ROOM,
    participant=ALICE,
    sid="TR_1",
    source="microphone",
    joined_at=None,
    muted=False,
)
SPEAKING, SILENT = StateChanged("listening", "speaking"), StateChanged("speaking", "listening")


async def test_a_track_whose_log_failed_is_recorded_again_once_the_log_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(observed, "RETRY_S", 0.02)
    clock = SystemClock()
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="job", clock=clock, retry_s=0.1)
    records = Observers(Records(outbox, clock, tracker_settings(Speech())))
    opened: list[StreamRecord] = []
    refused = asyncio.Event()

    async def open_record(track: ObservedTrack) -> StreamRecord | None:
        record = await records(track)
        if record is None:
            refused.set()
        else:
            opened.append(record)
        return record

    stream = ObservedStream(TRACK, open_record, clock)
    await until(lambda: len(opened) == 1)
    assert await records(TRACK) is None, "one track, one record"
    somebody_else = WriteLock(tmp_path / "relay.db.lock")
    with somebody_else.taken():
        stream.report(SPEAKING)
        async with asyncio.timeout(30):
            await opened[0].lost()
    somebody_else.close()

    async with asyncio.timeout(30):
        await refused.wait()
    await close_orphans_once(outbox, clock)
    async with asyncio.timeout(30):
        while len(opened) < 2:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
    stream.report(SPEAKING)
    stream.report(SILENT)
    stream.end("unpublished")
    async with asyncio.timeout(30):
        await stream.task
    told = [[record.type for record in await outbox.history(one.stream_id)] for one in opened]
    await outbox.aclose()
    assert told[0][0] == "stream.started"
    assert told[0][-1] == "stream.ended"
    assert told[1] == [
        "stream.started",
        "user.state_changed",
        "speech.started",
        "user.state_changed",
        "speech.ended",
        "utterance.completed",
        "stream.ended",
    ]
