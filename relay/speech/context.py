"""Describes what a tracker works for: its stream, and the timeouts that it keeps."""

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


CLOSE_WAIT_MS = 3000
"""How long a detector that was closed in mid-speech waits for the reason. Closing an agent session takes up to 2 s (it
waits for its last transcript), and the end of the stream is reported after that."""

OUTAGE_WAIT_MS = 30_000
"""How long ended speech waits for its text while the transcriber is down: as long as audio is buffered for it."""


KEPT_UTTERANCES = 32
"""The number of completed utterances, with their texts, that are remembered for late text. A provider gets at most the
last 30 s of audio again."""


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """All in milliseconds."""

    merge_gap_ms: int = 0
    """Speech that resumes within this belongs to the same utterance; its end waits that long. 0: every pause ends
    it."""
    transcript_timeout_ms: int = 5000
    """After the end of speech without a final, or after an interim without voice activity: no transcript comes."""
    final_grace_ms: int = 600
    """After the end of speech and the last transcript: no further final comes."""
    untranscribed_ms: int = 1000
    """Where the finals' words end earlier than speech by this much, further finals are waited for: a long utterance
    gets several, and a busy provider may be late with the last one."""
    join_timeout_ms: int = 1000
    """A provider final that the session has not reported by then is released without it."""
