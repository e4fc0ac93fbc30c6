"""``vad.*``: the voice activity detector's own speech starts and ends, passed on unchanged."""

from typing import Literal

from relay.events.envelope import Model, StreamEvent

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
