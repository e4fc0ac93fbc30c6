"""``realtime.*``: a realtime model's own speech starts and ends, passed on unchanged."""

from typing import Literal

from relay.events.envelope import Model, StreamEvent

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
