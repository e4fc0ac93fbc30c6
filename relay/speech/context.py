"""Describes a stream: the data that each of its events repeats."""

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
    """Provider and model of the realtime model that replaces both; None without one. Without any of the three, the
    stream follows an agent's session elsewhere, whose detectors are unknown here."""

    @property
    def opener(self) -> Detector:
        """The detector that opens and ends utterances."""
        if self.vad is not None:
            return "vad"
        if self.realtime is not None:
            return "realtime"
        return "session" if self.stt is None else "stt"

    @property
    def overheard(self) -> bool:
        """Whether no detector here listens: all reports come from an agent's session elsewhere."""
        return self.opener == "session"

    @property
    def transcribes(self) -> bool:
        """Whether speech is transcribed."""
        return self.stt is not None or self.realtime is not None or self.overheard
