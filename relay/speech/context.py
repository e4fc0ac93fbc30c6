"""What a stream is, said once and repeated in each of its events."""

from dataclasses import dataclass

from relay.events.envelope import Detector, ParticipantRef, RoomRef


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
    realtime: str | None = None
    """Provider and model of the realtime model that stands in for both; None without one."""

    @property
    def opener(self) -> Detector:
        """The detector that opens and ends utterances."""
        if self.vad is not None:
            return "vad"
        return "stt" if self.realtime is None else "realtime"

    @property
    def transcribes(self) -> bool:
        """Whether what is said gets a text."""
        return self.stt is not None or self.realtime is not None
