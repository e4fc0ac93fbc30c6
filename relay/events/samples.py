"""One sample of every event type, used in the documentation and by ``trigger``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from relay.events.detectors import (
    RealtimeSpeechEnded,
    RealtimeSpeechEndedData,
    RealtimeSpeechStarted,
    RealtimeSpeechStartedData,
)
from relay.events.envelope import Event, ParticipantRef, RoomStreamRef, Source, StreamRef, Timing, UtteranceRef
from relay.events.omission import EventTooLargeData, OverlapTooLarge
from relay.events.operator import (
    CaptureLimited,
    CaptureLimitedData,
    DeliveryDead,
    DeliveryParked,
    EndpointDisabled,
    EndpointDisabledData,
    EndpointEnabled,
    EndpointEnabledData,
    Ping,
    PingData,
    RelayStreamRef,
    UndeliveredData,
)
from relay.events.sample_stream import ROOM, STREAM, UTTERANCE, at, spoken
from relay.events.speech import OverlapEnded, OverlapEndedData, OverlapStarted, OverlapStartedData, Speaker


def _heard_by_a_model() -> dict[str, Event]:
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


def _overlapping() -> dict[str, Event]:
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


def _told_to_operators() -> dict[str, Event]:
    """One endpoint fails for a long time; another is tested."""
    stream = "01KAJ8R1C7M3Q9S5W2X4Y6Z8A0"
    undelivered = UndeliveredData(
        endpoint="crm",
        event_id=f"evt_{STREAM}_8",
        event_type="transcript.final",
        stream_id=f"str_{STREAM}",
        sequence=8,
        attempts=5,
        reason="status 500",
    )

    def fields(sequence: int, ms: int) -> dict[str, Any]:
        return {
            "timestamp": at(ms),
            "id": f"evt_{stream}_{sequence}",
            "stream": RelayStreamRef(id=f"str_{stream}", sequence=sequence),
        }

    disabled = EndpointDisabledData(
        endpoint="crm", reason="failing", failing_since=at(7200), last_error="connect: Connection refused"
    )
    about_rooms = "01KAJ8R1D2N4R6T8V0X2Z4B6D8"
    limited = CaptureLimitedData(limit="max_tracks_per_participant", maximum=2, room=ROOM, participant_sid="PA_8Uu4Kq")
    enabled = EndpointEnabledData(endpoint="crm", replay=True, disabled_at=at(432_007_200))
    return {
        "delivery.parked": DeliveryParked(**fields(1, 307_200), data=undelivered),
        "delivery.dead": DeliveryDead(**fields(2, 284_107_200), data=undelivered.model_copy(update={"attempts": 12})),
        "endpoint.disabled": EndpointDisabled(**fields(3, 432_007_200), data=disabled),
        "endpoint.enabled": EndpointEnabled(**fields(4, 434_000_000), data=enabled),
        "capture.limited": CaptureLimited(
            timestamp=at(400),
            id=f"evt_{about_rooms}_1",
            stream=RelayStreamRef(id=f"str_{about_rooms}", sequence=1),
            data=limited,
        ),
        "ping": Ping(timestamp=at(0), id="evt_01KAJ8R0V3N7T1B5G9H2K4M6P8", data=PingData(endpoint="crm")),
    }


SAMPLES: Mapping[str, Event] = MappingProxyType(spoken() | _heard_by_a_model() | _overlapping() | _told_to_operators())
"""Type name → a sample event, from one short call in which Alice says "Hello world." while Bob speaks."""
