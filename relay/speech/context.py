"""What a stream is, said once and repeated in each of its events."""

from dataclasses import dataclass

from relay.events.envelope import ParticipantRef, RoomRef


@dataclass(frozen=True, slots=True)
class StreamContext:
    """One audio track of one participant, and which detectors listen to it."""

    stream_id: str
    room: RoomRef
    participant: ParticipantRef
    track_sid: str
    track_source: str
    vad: str | None
    """Provider of the voice activity detection; None without one."""
    stt: str | None
    """Provider and model of the speech-to-text; None without one."""
