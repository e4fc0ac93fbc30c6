"""``speech.*``, ``transcript.*``, ``utterance.completed``: what was said, from all detectors together.

``overlap.*``: several participants of a room speak at the same time. On the room's own stream.
"""

from typing import ClassVar, Literal

from pydantic import Field

from relay.events.envelope import Delivery, Detector, Model, RoomEvent, UtteranceEvent


class Word(Model):
    text: str
    start_ms: int | None
    """Start in milliseconds of audio since the stream's first frame."""
    end_ms: int | None
    """End in milliseconds of audio since the stream's first frame."""
    confidence: float | None = Field(default=None)
    """0 to 1, from the provider; null where it gives none."""


class TranscriptInterimData(Model):
    text: str
    language: str | None
    """The provider's code of the language, such as ``en``; null where it gives none."""
    speaker_id: str | None
    """The provider's diarization label; null without diarization."""


class TranscriptInterim(UtteranceEvent):
    """Preliminary text that later interims and the final replace. Only the newest one of an utterance is worth
    sending."""

    delivery: ClassVar[Delivery] = Delivery.LATEST

    type: Literal["transcript.interim"] = "transcript.interim"
    data: TranscriptInterimData


class TranscriptFinalData(Model):
    text: str
    language: str | None
    """The provider's code of the language, such as ``en``; null where it gives none."""
    speaker_id: str | None
    """The provider's diarization label; null without diarization."""
    confidence: float | None
    """0 to 1, from the provider; null where it gives none."""
    words: tuple[Word, ...]
    """Empty where the provider gives no words."""


class TranscriptFinal(UtteranceEvent):
    """Text that will not change. An utterance may have several finals; their texts follow one another."""

    type: Literal["transcript.final"] = "transcript.final"
    data: TranscriptFinalData


SpeechEnd = Literal[
    "silence", "muted", "unpublished", "disconnected", "room_ended", "detector_lost", "shutdown", "worker_lost"
]
"""silence: the participant stopped; the others: what cut the speech off."""

Outcome = Literal["transcribed", "no_transcript", "no_vad"]
"""transcribed: speech with text; no_transcript: speech without text; no_vad: text without voice activity, or text that
came after its utterance was completed and has no times to match it by."""


class SpeechStartedData(Model):
    opened_by: Detector
    """The detector that reported the speech first."""


class SpeechStarted(UtteranceEvent):
    """A participant started to speak. Exactly one ``speech.ended`` with the same utterance id follows."""

    type: Literal["speech.started"] = "speech.started"
    data: SpeechStartedData


class SpeechEndedData(Model):
    reason: SpeechEnd
    duration_ms: int | None
    """From onset to end, in milliseconds of audio; null where either is unknown."""
    flaps: int
    """The number of pauses shorter than ``speech.merge_gap`` that were merged into this utterance."""


class SpeechEnded(UtteranceEvent):
    """The speech ended."""

    type: Literal["speech.ended"] = "speech.ended"
    data: SpeechEndedData


class UtteranceCompletedData(Model):
    outcome: Outcome
    revises: int | None = Field(default=None)
    """Null in an utterance's first completion. A later completion adds text that came late and replaces the whole
    record: this is the ``utterance.revision`` of the completion that it replaces."""
    reason: SpeechEnd
    """Why the speech ended."""
    duration_ms: int | None
    """From onset to end, in milliseconds of audio; null where either is unknown."""
    text: str
    """The finals' texts in order, joined by a space; empty without a transcript."""
    finals: int
    """The number of ``transcript.final`` events of the utterance."""
    language: str | None
    """The provider's code of the language, such as ``en``; null where it gives none."""
    speaker_ids: tuple[str, ...]
    """The provider's diarization labels, in the order they first appeared."""
    confidence: float | None
    """Mean of the finals' confidences, 0 to 1; null where no final has one."""
    words: tuple[Word, ...]
    """The finals' words, in order; empty where the provider gives no words."""
    flaps: int
    """As in ``speech.ended``."""


class UtteranceCompleted(UtteranceEvent):
    """The complete record of an utterance: times, duration and text. Late text leads to another record (``revises``):
    the one with the highest ``utterance.revision`` counts."""

    type: Literal["utterance.completed"] = "utterance.completed"
    data: UtteranceCompletedData


class Speaker(Model):
    identity: str
    sid: str
    """LiveKit's participant sid."""
    stream_id: str
    """The stream that reports this speech."""
    utterance_id: str
    """The participant's utterance in the overlap. A participant with two utterances in it is listed twice."""


class OverlapStartedData(Model):
    overlap_id: str
    """The same in both events of an overlap."""
    speakers: tuple[Speaker, ...]
    """The participants so far, in the order in which they started to speak: at least two."""


class OverlapStarted(RoomEvent):
    """Two or more participants have been speaking at once for ``speech.overlap_min``. ``timing.occurred_at`` is when
    the second of them started. Exactly one ``overlap.ended`` with the same overlap id follows, before any other
    overlap."""

    type: Literal["overlap.started"] = "overlap.started"
    data: OverlapStartedData


class OverlapEndedData(Model):
    overlap_id: str
    reason: SpeechEnd
    """Why the speech ended that left fewer than two participants speaking."""
    duration_ms: int | None
    """From the time two were speaking until fewer than two were; null where either time is unknown."""
    peak: int
    """The maximum number of participants speaking at once."""
    speakers: tuple[Speaker, ...]
    """All participants, in the order in which they started to speak. After ``worker_lost``: those listed at its
    start."""


class OverlapEnded(RoomEvent):
    """Fewer than two participants are speaking."""

    type: Literal["overlap.ended"] = "overlap.ended"
    data: OverlapEndedData
