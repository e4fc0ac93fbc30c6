"""Samples of one stream: Alice says "Hello world."; and the call that all samples come from."""

from datetime import UTC, datetime, timedelta
from typing import Any

from relay.events.catalog import CATALOG
from relay.events.detectors import (
    SttSpeechData,
    TurnCompletedData,
    UserStateChangedData,
    VadSpeechEndedData,
    VadSpeechStartedData,
)
from relay.events.envelope import (
    Detector,
    Event,
    Model,
    ParticipantRef,
    RoomRef,
    Source,
    StreamRef,
    Timing,
    UtteranceEvent,
    UtteranceRef,
)
from relay.events.omission import EventTooLargeData
from relay.events.speech import (
    SpeechEndedData,
    SpeechStartedData,
    TranscriptFinalData,
    TranscriptInterimData,
    UtteranceCompletedData,
    Word,
)
from relay.events.stream import (
    MicrophoneMutedData,
    MicrophoneUnmutedData,
    SourceFailedData,
    SourceRecoveredData,
    StreamEndedData,
    StreamStartedData,
)

START = datetime(2026, 11, 21, 10, 15, 0, tzinfo=UTC)
STREAM = "01KAJ8Q6T5ZV8K7W0C9Y4M2N3B"
UTTERANCE = "utt_01KAJ8QC1S0Q4X6J7F4V2R9D5E"
ROOM = RoomRef(sid="RM_hT3kq9", name="support-42")


def at(media_ms: int) -> datetime:
    """The time this long after the start of Alice's stream."""
    return START + timedelta(milliseconds=media_ms)


_WORDS = (
    Word(text="Hello", start_ms=5120, end_ms=5400, confidence=0.98),
    Word(text="world.", start_ms=5480, end_ms=6480, confidence=0.96),
)
_DATA: tuple[tuple[str, Detector, int | None, int | None, int, Model], ...] = (
    # type, detector, media start, media end, detected at (ms after the start of the stream), data
    (
        "stream.started",
        "room",
        None,
        None,
        0,
        StreamStartedData(joined_at=at(-900), subscribed_at=at(-80), first_frame_at=at(0), missed_ms=220, muted=False),
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
            started_speaking_at=at(5100),
            stopped_speaking_at=at(6500),
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
            revises=None,
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
        SourceFailedData(detector="stt", reason="unreachable", failed_at=at(12_480)),
    ),
    (
        "source.recovered",
        "stt",
        None,
        None,
        14200,
        SourceRecoveredData(detector="stt", reason="unreachable", failed_at=at(12_480), gone_ms=1720, missed_ms=0),
    ),
    ("stream.ended", "room", None, None, 15000, StreamEndedData(reason="disconnected", heard_ms=15000, utterances=1)),
)


def spoken() -> dict[str, Event]:
    """Alice's stream, from the first event to the last."""
    samples: dict[str, Event] = {}
    revision = 0
    for sequence, (name, detector, start, end, detected, data) in enumerate(_DATA, start=1):
        cls = CATALOG[name]
        occurred = end if end is not None and name.endswith(("ended", "final", "completed")) else start
        fields: dict[str, Any] = {"utterance": None}
        if issubclass(cls, UtteranceEvent) or name.startswith(("vad.", "stt.")):
            revision += 1
            fields["utterance"] = UtteranceRef(id=UTTERANCE, index=0, revision=revision)
        samples[name] = cls(
            timestamp=at(detected if occurred is None else occurred),
            id=f"evt_{STREAM}_{sequence}",
            room=ROOM,
            participant=ParticipantRef(
                sid="PA_v7Yx2c", identity="alice", name="Alice", kind="standard", attributes={"team": "blue"}
            ),
            stream=StreamRef(id=f"str_{STREAM}", sequence=sequence, track_sid="TR_AMq4Zf", track_source="microphone"),
            timing=Timing(
                occurred_at=None if occurred is None else at(occurred),
                detected_at=at(detected),
                emitted_at=at(detected + 1),
                media_start_ms=start,
                media_end_ms=end,
                timed_by=None if occurred is None else ("vad" if detector in {"vad", "tracker"} else "stt"),
                reliable=True,
            ),
            source=Source(detector=detector, stt="deepgram/nova-3", vad="silero"),
            data=data,  # type: ignore[call-arg]  # each concrete event has it, the common base cannot name its type
            **fields,
        )
    return samples
