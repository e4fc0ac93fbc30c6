"""One sample of every type: what the documentation shows and ``trigger`` sends."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from relay.events.catalog import CATALOG
from relay.events.envelope import (
    Detector,
    Event,
    ParticipantRef,
    RoomRef,
    RoomStreamRef,
    Source,
    StreamRef,
    Timing,
    UtteranceEvent,
    UtteranceRef,
)
from relay.events.microphone import MicrophoneMutedData, MicrophoneUnmutedData
from relay.events.model import Model
from relay.events.omission import EventTooLargeData, OverlapTooLarge
from relay.events.operator import (
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
from relay.events.overlap import OverlapEnded, OverlapEndedData, OverlapStarted, OverlapStartedData, Speaker
from relay.events.realtime import (
    RealtimeSpeechEnded,
    RealtimeSpeechEndedData,
    RealtimeSpeechStarted,
    RealtimeSpeechStartedData,
)
from relay.events.source import SourceFailedData, SourceRecoveredData
from relay.events.speech import SpeechEndedData, SpeechStartedData, UtteranceCompletedData
from relay.events.stream import StreamEndedData, StreamStartedData
from relay.events.stt import SttSpeechData
from relay.events.transcript import TranscriptFinalData, TranscriptInterimData, Word
from relay.events.turn import TurnCompletedData, UserStateChangedData
from relay.events.vad import VadSpeechEndedData, VadSpeechStartedData

_START = datetime(2026, 11, 21, 10, 15, 0, tzinfo=UTC)
_STREAM = "01KAJ8Q6T5ZV8K7W0C9Y4M2N3B"
_UTTERANCE = "utt_01KAJ8QC1S0Q4X6J7F4V2R9D5E"
_ROOM = RoomRef(sid="RM_hT3kq9", name="support-42")
_WORDS = (
    Word(text="Hello", start_ms=5120, end_ms=5400, confidence=0.98),
    Word(text="world.", start_ms=5480, end_ms=6480, confidence=0.96),
)


def _at(media_ms: int) -> datetime:
    return _START + timedelta(milliseconds=media_ms)


_DATA: tuple[tuple[str, Detector, int | None, int | None, int, Model], ...] = (
    # type, detector, media start, media end, detected at (ms after the start of the stream), data
    (
        "stream.started",
        "room",
        None,
        None,
        0,
        StreamStartedData(
            joined_at=_at(-900), subscribed_at=_at(-80), first_frame_at=_at(0), missed_ms=220, muted=False
        ),
    ),
    ("vad.speech_started", "vad", 5100, None, 5240, VadSpeechStartedData(speech_ms=140, probability=0.91)),
    ("speech.started", "tracker", 5100, None, 5240, SpeechStartedData(opened_by="vad")),
    (
        "user.state_changed",
        "session",
        None,
        None,
        5241,
        UserStateChangedData(old_state="listening", new_state="speaking"),
    ),
    ("stt.speech_started", "stt", 5120, None, 5310, SttSpeechData(request_id="req_8c1f")),
    (
        "transcript.interim",
        "session",
        5120,
        5400,
        5650,
        TranscriptInterimData(text="Hello", language="en", speaker_id=None),
    ),
    ("stt.speech_ended", "stt", None, 6480, 6900, SttSpeechData(request_id="req_8c1f")),
    (
        "transcript.final",
        "session",
        5120,
        6480,
        6910,
        TranscriptFinalData(text="Hello world.", language="en", speaker_id=None, confidence=0.97, words=_WORDS),
    ),
    (
        "vad.speech_ended",
        "vad",
        5100,
        6500,
        7050,
        VadSpeechEndedData(
            reason="silence", speech_ms=1400, silence_ms=550, probability_peak=0.99, probability_mean=0.93
        ),
    ),
    ("speech.ended", "tracker", 5100, 6500, 7050, SpeechEndedData(reason="silence", duration_ms=1400, flaps=0)),
    (
        "turn.completed",
        "session",
        None,
        None,
        7120,
        TurnCompletedData(
            text="Hello world.",
            confidence=0.97,
            started_speaking_at=_at(5100),
            stopped_speaking_at=_at(6500),
            transcription_delay_ms=410,
            end_of_turn_delay_ms=620,
        ),
    ),
    (
        "utterance.completed",
        "tracker",
        5100,
        6500,
        7650,
        UtteranceCompletedData(
            outcome="transcribed",
            reason="silence",
            duration_ms=1400,
            text="Hello world.",
            finals=1,
            language="en",
            speaker_ids=(),
            confidence=0.97,
            words=_WORDS,
            flaps=0,
        ),
    ),
    ("microphone.muted", "room", None, None, 9000, MicrophoneMutedData(cut_speech=False)),
    (
        "event.too_large",
        "session",
        None,
        None,
        11000,
        EventTooLargeData(type="transcript.final", bytes=301_442, limit=262_144),
    ),
    ("microphone.unmuted", "room", None, None, 12000, MicrophoneUnmutedData(muted_ms=3000)),
    (
        "source.failed",
        "stt",
        None,
        None,
        13000,
        SourceFailedData(detector="stt", reason="unreachable", failed_at=_at(12_480)),
    ),
    (
        "source.recovered",
        "stt",
        None,
        None,
        14200,
        SourceRecoveredData(detector="stt", reason="unreachable", failed_at=_at(12_480), gone_ms=1720, missed_ms=0),
    ),
    ("stream.ended", "room", None, None, 15000, StreamEndedData(reason="disconnected", heard_ms=15000, utterances=1)),
)


def _realtime() -> dict[str, Event]:
    """Carol speaks where a realtime model listens."""
    stream = "01KAJ8Q9F2R5T8V1X4Z7B0D3G6"

    def fields(sequence: int, start: int | None, end: int | None, detected: int) -> dict[str, Any]:
        occurred = _at(start or end or 0)
        return {
            "timestamp": occurred,
            "id": f"evt_{stream}_{sequence}",
            "room": _ROOM,
            "participant": ParticipantRef(
                sid="PA_c5Rt9n", identity="carol", name="Carol", kind="standard", attributes={}
            ),
            "stream": StreamRef(
                id=f"str_{stream}", sequence=sequence, track_sid="TR_AMz8Lk", track_source="microphone"
            ),
            "utterance": UtteranceRef(id="utt_01KAJ8QE2C5F8H1K4N7Q0S3V6X", index=0, revision=1 if end is None else 3),
            "timing": Timing(
                occurred_at=occurred,
                detected_at=_at(detected),
                emitted_at=_at(detected + 1),
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


def _overlap() -> dict[str, Event]:
    """Bob says something while Alice speaks."""
    room_stream, overlap = "01KAJ8QD3M8Y1T6R5C2W9Z4X7G", "ovl_01KAJ8QD4A2F6H8J0K3M5P7R9T"
    utterances = (
        ("alice", "PA_v7Yx2c", _STREAM, _UTTERANCE),
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
            "timestamp": _at(occurred),
            "id": f"evt_{room_stream}_{sequence}",
            "room": _ROOM,
            "stream": RoomStreamRef(id=f"str_{room_stream}", sequence=sequence),
            "timing": Timing(
                occurred_at=_at(occurred),
                detected_at=_at(detected),
                emitted_at=_at(detected),
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


def _operator() -> dict[str, Event]:
    stream = "01KAJ8R1C7M3Q9S5W2X4Y6Z8A0"
    undelivered = UndeliveredData(
        endpoint="crm",
        event_id=f"evt_{_STREAM}_8",
        event_type="transcript.final",
        stream_id=f"str_{_STREAM}",
        sequence=8,
        attempts=5,
        reason="status 500",
    )

    def fields(sequence: int, at: int) -> dict[str, Any]:
        return {
            "timestamp": _at(at),
            "id": f"evt_{stream}_{sequence}",
            "stream": RelayStreamRef(id=f"str_{stream}", sequence=sequence),
        }

    disabled = EndpointDisabledData(
        endpoint="crm", reason="failing", failing_since=_at(7200), last_error="connect: Connection refused"
    )
    enabled = EndpointEnabledData(endpoint="crm", replay=True, disabled_at=_at(432_007_200))
    return {
        "delivery.parked": DeliveryParked(**fields(1, 307_200), data=undelivered),
        "delivery.dead": DeliveryDead(**fields(2, 284_107_200), data=undelivered.model_copy(update={"attempts": 12})),
        "endpoint.disabled": EndpointDisabled(**fields(3, 432_007_200), data=disabled),
        "endpoint.enabled": EndpointEnabled(**fields(4, 434_000_000), data=enabled),
    }


def _build() -> dict[str, Event]:
    samples: dict[str, Event] = {}
    revision = 0
    for sequence, (name, detector, start, end, detected, data) in enumerate(_DATA, start=1):
        cls = CATALOG[name]
        occurred = end if end is not None and name.endswith(("ended", "final", "completed")) else start
        fields: dict[str, Any] = {}
        if issubclass(cls, UtteranceEvent) or name.startswith(("vad.", "stt.")):
            revision += 1
            fields["utterance"] = UtteranceRef(id=_UTTERANCE, index=0, revision=revision)
        samples[name] = cls(
            timestamp=_at(detected if occurred is None else occurred),
            id=f"evt_{_STREAM}_{sequence}",
            room=_ROOM,
            participant=ParticipantRef(
                sid="PA_v7Yx2c", identity="alice", name="Alice", kind="standard", attributes={"team": "blue"}
            ),
            stream=StreamRef(id=f"str_{_STREAM}", sequence=sequence, track_sid="TR_AMq4Zf", track_source="microphone"),
            timing=Timing(
                occurred_at=None if occurred is None else _at(occurred),
                detected_at=_at(detected),
                emitted_at=_at(detected + 1),
                media_start_ms=start,
                media_end_ms=end,
                timed_by=None if occurred is None else ("vad" if detector in {"vad", "tracker"} else "stt"),
                reliable=True,
            ),
            source=Source(detector=detector, stt="deepgram/nova-3", vad="silero"),
            data=data,  # type: ignore[call-arg]  # each concrete event has it, the common base cannot name its type
            **fields,
        )
    samples |= _realtime() | _overlap() | _operator()
    samples["ping"] = Ping(timestamp=_at(0), id="evt_01KAJ8R0V3N7T1B5G9H2K4M6P8", data=PingData(endpoint="crm"))
    return samples


SAMPLES: Mapping[str, Event] = MappingProxyType(_build())
"""Type name → a sample event: one short call in which Alice says "Hello world." and Bob speaks meanwhile."""
