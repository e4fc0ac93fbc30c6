"""``vad.*``, ``stt.*``, ``realtime.*``, ``turn.*``, ``user.*``: what one detector reports, passed on unchanged."""

from typing import Literal

from relay.events.envelope import Instant, Model, StreamEvent

VadEnd = Literal["silence", "flushed", "closed"]
"""silence: the detector detected the end; flushed, closed: reset or closed in mid-speech, without an end time of its
own."""


class VadSpeechStartedData(Model):
    speech_ms: int
    """Speech that the detector processed before it reported the start, in milliseconds; the onset is that much
    earlier."""
    probability: float | None
    """The highest probability of speech that led to the detection, 0 to 1."""


class VadSpeechStarted(StreamEvent):
    """The detector's START_OF_SPEECH. ``timing.media_start_ms`` is the onset."""

    type: Literal["vad.speech_started"] = "vad.speech_started"
    data: VadSpeechStartedData


class VadSpeechEndedData(Model):
    reason: VadEnd
    speech_ms: int | None
    """The duration of the speech, in milliseconds; null where the detector did not report it."""
    silence_ms: int | None
    """Silence that the detector waited for before it reported the end, in milliseconds."""
    probability_peak: float | None
    """Highest probability of speech during the segment, 0 to 1."""
    probability_mean: float | None
    """Mean probability of speech during the segment, 0 to 1."""


class VadSpeechEnded(StreamEvent):
    """The detector's END_OF_SPEECH. ``timing.media_end_ms`` is where the speech ended, before the silence."""

    type: Literal["vad.speech_ended"] = "vad.speech_ended"
    data: VadSpeechEndedData


class SttSpeechData(Model):
    request_id: str | None
    """The provider's own id of the request, for its support."""


class SttSpeechStarted(StreamEvent):
    """The provider reports that speech started."""

    type: Literal["stt.speech_started"] = "stt.speech_started"
    data: SttSpeechData


class SttSpeechEnded(StreamEvent):
    """The provider reports that speech ended."""

    type: Literal["stt.speech_ended"] = "stt.speech_ended"
    data: SttSpeechData


RealtimeEnd = Literal["silence", "lost", "closed"]
"""silence: the model detected the end; lost: its connection broke in mid-speech and did not recover in time; closed: it
was closed in mid-speech. The last two have no end time of their own."""


class RealtimeSpeechStartedData(Model):
    item_id: str | None
    """The model's own id of the speech item, for its support; null where it gives none."""
    padding_ms: int | None
    """Audio before the onset that the model includes, in milliseconds: its own time is that much earlier. Null where it
    does not report it; then ``timing.media_start_ms`` is the model's own."""


class RealtimeSpeechStarted(StreamEvent):
    """The model reports that speech started. ``timing.media_start_ms`` is the onset."""

    type: Literal["realtime.speech_started"] = "realtime.speech_started"
    data: RealtimeSpeechStartedData


class RealtimeSpeechEndedData(Model):
    item_id: str | None
    """The model's own id of the speech item. After a reconnection it may differ from the one at the start."""
    reason: RealtimeEnd
    silence_ms: int | None
    """Silence that the model waited for before it reported the end, in milliseconds: its own time is that much later.
    Null where it does not report it; then ``timing.media_end_ms`` is the model's own."""


class RealtimeSpeechEnded(StreamEvent):
    """The model reports that speech ended. ``timing.media_end_ms`` is where it ended, before the silence."""

    type: Literal["realtime.speech_ended"] = "realtime.speech_ended"
    data: RealtimeSpeechEndedData


UserState = Literal["speaking", "listening", "away"]
"""speaking, listening: whether the user speaks; away: no speech for ``capture.away_after``."""


class UserStateChangedData(Model):
    old_state: UserState
    new_state: UserState


class UserStateChanged(StreamEvent):
    """The session's ``user_state_changed``."""

    type: Literal["user.state_changed"] = "user.state_changed"
    data: UserStateChangedData


class TurnCompletedData(Model):
    text: str
    """The whole turn, which may span several utterances."""
    confidence: float | None
    """The transcript's confidence, 0 to 1; null where the provider gives none."""
    started_speaking_at: Instant | None
    """When the turn's speech started, according to the session; null where it does not report it."""
    stopped_speaking_at: Instant | None
    """When the turn's speech ended, according to the session; null where it does not report it."""
    transcription_delay_ms: int | None
    """From the end of speech to the final transcript, in milliseconds."""
    end_of_turn_delay_ms: int | None
    """From the end of speech to the end-of-turn decision, in milliseconds."""


class TurnCompleted(StreamEvent):
    """The session decided that the user's turn is over."""

    type: Literal["turn.completed"] = "turn.completed"
    data: TurnCompletedData
