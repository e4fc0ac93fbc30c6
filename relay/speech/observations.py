"""Detector reports as plain values: the tracker's only input.

Media times are integer milliseconds of audio since the stream's first frame; wall times are integer milliseconds since
1970-01-01 UTC. A time that the detector did not give is None.
"""

from dataclasses import dataclass
from typing import Literal

from relay.events.detectors import RealtimeEnd, UserState, VadEnd
from relay.events.stream import SourceFailure, SourceName, StreamEnd


@dataclass(frozen=True, slots=True)
class Listening:
    """The relay listens to the track. The first observation of a stream; media time 0 is the first frame."""

    subscribed_at: int
    first_frame_at: int | None
    joined_at: int | None = None
    missed_ms: int | None = None
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Anchored:
    """Sample anchor: the audio at ``media_ms`` was captured at the wall time ``wall_ms``."""

    media_ms: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class VadStarted:
    onset_ms: int
    speech_ms: int
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class VadEnded:
    """Exactly one follows each VadStarted: a flush or close in mid-speech reports it with that reason."""

    end_ms: int | None
    reason: VadEnd = "silence"
    speech_ms: int | None = None
    silence_ms: int | None = None
    probability_peak: float | None = None
    probability_mean: float | None = None


@dataclass(frozen=True, slots=True)
class SttStarted:
    at_ms: int | None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class SttEnded:
    at_ms: int | None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class RealtimeStarted:
    """A realtime model detected speech. ``padding_ms`` of audio before the onset belong to the model's item."""

    at_ms: int | None
    item_id: str | None = None
    padding_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RealtimeEnded:
    """Exactly one follows each RealtimeStarted, also when the connection is lost or closed in mid-speech."""

    at_ms: int | None
    reason: RealtimeEnd = "silence"
    item_id: str | None = None
    silence_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SpokenWord:
    text: str
    start_ms: int | None
    end_ms: int | None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class SttTranscript:
    """The provider's own transcript event. The session reports the same text again, as Transcribed, without times."""

    text: str
    final: bool
    start_ms: int | None = None
    end_ms: int | None = None
    words: tuple[SpokenWord, ...] = ()
    confidence: float | None = None
    language: str | None = None
    speaker_id: str | None = None
    request_id: str | None = None
    reliable: bool = True
    detector: Literal["stt", "realtime"] = "stt"


@dataclass(frozen=True, slots=True)
class Transcribed:
    """The session's ``user_input_transcribed``."""

    text: str
    final: bool
    language: str | None = None
    speaker_id: str | None = None


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The session's ``user_state_changed``."""

    old: UserState
    new: UserState


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The session's end of turn."""

    text: str
    confidence: float | None = None
    started_speaking_at: int | None = None
    stopped_speaking_at: int | None = None
    transcription_delay_ms: int | None = None
    end_of_turn_delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Muted:
    """The participant muted the track."""


@dataclass(frozen=True, slots=True)
class Unmuted:
    """The participant unmuted the track."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """The track ended: no more speech. Pending transcripts still come, then Ended follows. None: it is back instead."""

    reason: StreamEnd | None


@dataclass(frozen=True, slots=True)
class DetectorLost:
    """The stream's detectors failed or were restarted: an end may never come for what is open."""


@dataclass(frozen=True, slots=True)
class SourceDown:
    """A detector failed at the wall time ``failed_at``, and is retried. At most one SourceUp follows."""

    detector: SourceName
    reason: SourceFailure
    failed_at: int


@dataclass(frozen=True, slots=True)
class SourceUp:
    """The detector works again, ``gone_ms`` after it failed; ``missed_ms`` of audio will never be processed."""

    detector: SourceName
    reason: SourceFailure
    failed_at: int
    gone_ms: int
    missed_ms: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is over. The last observation."""

    reason: StreamEnd
    heard_ms: int | None


Observation = (
    Listening
    | Anchored
    | VadStarted
    | VadEnded
    | SttStarted
    | SttEnded
    | RealtimeStarted
    | RealtimeEnded
    | SttTranscript
    | Transcribed
    | StateChanged
    | TurnEnded
    | Muted
    | Unmuted
    | Leaving
    | DetectorLost
    | SourceDown
    | SourceUp
    | Ended
)
