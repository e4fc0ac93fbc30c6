"""``transcript.*``: the text that the agent session reports, joined with the provider's words."""

from typing import ClassVar, Literal

from pydantic import Field

from relay.events.envelope import Delivery, Model, UtteranceEvent


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
