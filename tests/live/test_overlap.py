"""People who speak at once in a room of a real LiveKit server, and a job that dies meanwhile."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay.events.envelope import RoomEvent, StreamEvent
from relay.events.speech import OverlapEnded, OverlapStarted, SpeechEnded, SpeechStarted
from relay.speech.overlap import OverlapSettings
from tests.support.audio.story import told, told_of_rooms
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.speech]


def overlaps(receiver: Receiver) -> list[RoomEvent]:
    return [event for stream in told_of_rooms(receiver.answered, SECRET).values() for event in stream]


def going_on(receiver: Receiver) -> bool:
    events = overlaps(receiver)
    return bool(events) and isinstance(events[-1], OverlapStarted)


async def test_who_speaks_at_once_is_told_and_a_dead_jobs_overlap_is_ended(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path) as relay:
        await relay.start()
        async with (
            participant(server, "alice", "room") as alice,
            participant(server, "bob", "room") as bob,
            participant(server, "dave", "room") as dave,
            participant(server, "carol", "alone") as carol,
        ):
            await dave.publish(speech_wav(), start_s=4.0, loop=True)
            await carol.publish(speech_wav(), loop=True)
            await alice.publish(speech_wav("two_cities"), loop=True)
            microphone = await bob.publish(speech_wav(), loop=True)
            await receiver.wait_for(lambda: any(isinstance(e, OverlapEnded) for e in overlaps(receiver)), within=30)
            await receiver.wait_for(lambda: going_on(receiver), within=20)
            bob.mute(microphone)
            await receiver.wait_for(lambda: not going_on(receiver), within=20)
            bob.unmute(microphone)

            await receiver.wait_for(lambda: going_on(receiver), within=20)
            killed_at = datetime.now(UTC)
            relay.kill_job()
            await receiver.wait_for(lambda: len(told_of_rooms(receiver.answered, SECRET)) == 2, within=40)
        await receiver.wait_for(lambda: all(stream.end for stream in told(receiver.answered, SECRET)), within=40)
        assert await relay.stop() == 0, relay.tail()

        reasons, measured = [], set()
        speech = [event for stream in told(receiver.answered, SECRET) for event in stream.events]
        started_by = {e.utterance.id: e.participant.identity for e in speech if isinstance(e, SpeechStarted)}
        for stream in told_of_rooms(receiver.answered, SECRET).values():
            assert len(stream) % 2 == 0
            for started, ended in zip(stream[::2], stream[1::2], strict=True):
                assert isinstance(started, OverlapStarted)
                assert isinstance(ended, OverlapEnded)
                assert started.room.name == ended.room.name == "room"
                assert started.data.overlap_id == ended.data.overlap_id
                assert len({speaker.identity for speaker in started.data.speakers}) >= 2, (
                    "an overlap must name at least two participants"
                )
                assert all(started_by[s.utterance_id] == s.identity for s in ended.data.speakers)
                if ended.data.duration_ms is not None:
                    assert ended.data.duration_ms >= 300, (
                        "an overlap shorter than speech.overlap_min must not be reported"
                    )
                    assert started.timing.occurred_at is not None
                    assert ended.timing.occurred_at is not None
                    measured.add((started.timing.occurred_at, ended.timing.occurred_at, ended.data.peak))
                    late = (started.timing.emitted_at - started.timing.occurred_at).total_seconds()
                    assert late < 30, "an overlap must be told of while people speak (test_overlaps has the exact time)"
                reasons.append(ended.data.reason)
        assert "worker_lost" in reasons
        # what ended in the last second before the kill may not have been told any more
        unsure = [(killed_at - timedelta(seconds=1), killed_at), *reported_too_late(speech)]
        expected = {one for one in overlapping(speech, killed_at) if not touches(one, unsure)}
        assert {one for one in measured if not touches(one, unsure)} == expected, (
            "what the streams themselves tell of who spoke when"
        )
        assert expected or len(unsure) > 1


def reported_too_late(events: Sequence[StreamEvent]) -> list[tuple[datetime, datetime]]:
    """Around starts and ends of which a busy machine told later than the relay waits for them."""
    waits, around = timedelta(milliseconds=OverlapSettings().lag_ms), timedelta(seconds=1)
    return [
        (event.timing.occurred_at - around, event.timing.occurred_at + around)
        for event in events
        if isinstance(event, SpeechStarted | SpeechEnded)
        and event.timing.occurred_at is not None
        and event.timing.emitted_at - event.timing.occurred_at > waits
    ]


def touches(overlap: tuple[datetime, datetime, int], unsure: Sequence[tuple[datetime, datetime]]) -> bool:
    began, ended, _ = overlap
    return any(began <= until and ended >= since for since, until in unsure)


def overlapping(events: Sequence[StreamEvent], killed_at: datetime) -> set[tuple[datetime, datetime, int]]:
    """(from, until, peak) whenever two of the room spoke for 300 ms, by the measured times of their speech alone."""
    started = {e.utterance.id: e for e in events if isinstance(e, SpeechStarted) and e.room.name == "room"}
    changes: list[tuple[datetime, bool, bool, str]] = []
    for event in events:
        if isinstance(event, SpeechEnded) and (start := started.get(event.utterance.id)) is not None:
            assert start.timing.occurred_at is not None
            lost = event.data.reason == "worker_lost"
            end = killed_at if lost else event.timing.occurred_at or event.timing.detected_at
            who = f"{start.room.sid} {start.participant.identity}"
            changes.append((start.timing.occurred_at, False, True, who))
            changes.append((max(end, start.timing.occurred_at), True, event.timing.occurred_at is not None, who))
    found, speaking, began, peak = set(), Counter[str](), None, 0
    for at, ends, measured, who in sorted(changes):
        speaking[who] += -1 if ends else 1
        at_once = len(+speaking)
        if at_once < 2 and began is not None:
            if measured and at - began >= timedelta(milliseconds=300):
                found.add((began, at, peak))
            began, peak = None, 0
        elif at_once >= 2:
            began, peak = began or at, max(peak, at_once)
    return found
