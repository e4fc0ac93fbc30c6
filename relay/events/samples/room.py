"""Samples of events about several participants."""

from typing import Any

from relay.events.envelope import Event, RoomStreamRef, Source, Timing
from relay.events.omission import EventTooLargeData, OverlapTooLarge
from relay.events.overlap import OverlapEnded, OverlapEndedData, OverlapStarted, OverlapStartedData, Speaker
from relay.events.samples.scene import ROOM, STREAM, UTTERANCE, at


def overlapping() -> dict[str, Event]:
    """Bob says something while Alice speaks."""
    room_stream, overlap = "01KAJ8QD3M8Y1T6R5C2W9Z4X7G", "ovl_01KAJ8QD4A2F6H8J0K3M5P7R9T"
    utterances = (
        ("alice", "PA_v7Yx2c", STREAM, UTTERANCE),
        (
            "bob",
            "PA_k2Wm8r",
            "01KAJ8Q9B6N4D2F8H0J3L5M7P9",
            "utt_01KAJ8QCJ7S5V3X1Z9B8D6F4H2",
        ),
    )
    speakers = tuple(
        Speaker(identity=identity, sid=sid, stream_id=f"str_{stream}", utterance_id=utterance)
        for identity, sid, stream, utterance in utterances
    )

    def fields(sequence: int, occurred: int, detected: int) -> dict[str, Any]:
        return {
            "timestamp": at(occurred),
            "id": f"evt_{room_stream}_{sequence}",
            "room": ROOM,
            "stream": RoomStreamRef(id=f"str_{room_stream}", sequence=sequence),
            "timing": Timing(
                occurred_at=at(occurred),
                detected_at=at(detected),
                emitted_at=at(detected),
                media_start_ms=None,
                media_end_ms=None,
                timed_by=None,
                reliable=True,
            ),
            "source": Source(detector="tracker", stt="deepgram/nova-3", vad="silero"),
        }

    started = OverlapStartedData(overlap_id=overlap, speakers=speakers)
    ended = OverlapEndedData(overlap_id=overlap, reason="silence", duration_ms=640, peak=2, speakers=speakers)
    return {
        "overlap.started": OverlapStarted(**fields(1, 5860, 7010), data=started),
        "overlap.ended": OverlapEnded(**fields(2, 6500, 7350), data=ended),
        "overlap.too_large": OverlapTooLarge(
            **fields(4, 6500, 7350), data=EventTooLargeData(type="overlap.ended", bytes=270_113, limit=262_144)
        ),
    }
