"""Samples of a stream with a realtime model."""

from typing import Any

from relay.events.envelope import Event, ParticipantRef, Source, StreamRef, Timing, UtteranceRef
from relay.events.realtime import (
    RealtimeSpeechEnded,
    RealtimeSpeechEndedData,
    RealtimeSpeechStarted,
    RealtimeSpeechStartedData,
)
from relay.events.samples.scene import ROOM, at


def heard_by_a_model() -> dict[str, Event]:
    """Carol speaks on a stream with a realtime model."""
    stream = "01KAJ8Q9F2R5T8V1X4Z7B0D3G6"

    def fields(sequence: int, start: int | None, end: int | None, detected: int) -> dict[str, Any]:
        occurred = at(start or end or 0)
        return {
            "timestamp": occurred,
            "id": f"evt_{stream}_{sequence}",
            "room": ROOM,
            "participant": ParticipantRef(
                sid="PA_c5Rt9n", identity="carol", name="Carol", kind="standard", attributes={}
            ),
            "stream": StreamRef(
                id=f"str_{stream}", sequence=sequence, track_sid="TR_AMz8Lk", track_source="microphone"
            ),
            "utterance": UtteranceRef(id="utt_01KAJ8QE2C5F8H1K4N7Q0S3V6X", index=0, revision=1 if end is None else 3),
            "timing": Timing(
                occurred_at=occurred,
                detected_at=at(detected),
                emitted_at=at(detected + 1),
                media_start_ms=start,
                media_end_ms=end,
                timed_by="realtime",
                reliable=True,
            ),
            "source": Source(detector="realtime", stt=None, vad=None, realtime="openai/gpt-realtime"),
        }

    started = RealtimeSpeechStartedData(item_id="item_C7vT2m", padding_ms=300)
    ended = RealtimeSpeechEndedData(item_id="item_C7vT2m", reason="silence", silence_ms=500)
    return {
        "realtime.speech_started": RealtimeSpeechStarted(**fields(2, 7200, None, 7420), data=started),
        "realtime.speech_ended": RealtimeSpeechEnded(**fields(4, None, 8300, 8890), data=ended),
    }
