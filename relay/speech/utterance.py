"""The state of one utterance, from its first sign to its completion."""

from dataclasses import dataclass, field
from typing import Literal

from relay.events.envelope import Detector, UtteranceRef
from relay.events.speech import Outcome, SpeechEnd, Word
from relay.speech.context import TrackerSettings
from relay.speech.timing import NOWHERE, Span

Phase = Literal["speaking", "pausing", "settling", "completed"]
"""speaking; pausing: the detector reported the end, but the speech may resume or the reason is not known yet; settling:
over, a transcript may still come; completed: no more input is expected."""


@dataclass(frozen=True, slots=True)
class Said:
    """A transcript as the relay reports it: once, with all known data."""

    text: str
    detector: Detector
    """The component that reported it: the session, or the provider alone."""
    language: str | None = None
    speaker_id: str | None = None
    confidence: float | None = None
    words: tuple[Word, ...] = ()
    span: Span = NOWHERE
    provided: bool = True
    """Whether the provider reported it; False: the session alone."""


@dataclass(slots=True)
class Utterance:
    """One utterance. Waiting times (``*_at``, without ``wall``) use the tracker's waiting clock."""

    id: str
    index: int
    opened_by: Detector
    heard: bool
    """Whether the voice activity detector reported it. Otherwise there is only text."""
    touched_at: int
    """When its last transcript came, or else when it was opened."""
    onset_ms: int | None = None
    end_ms: int | None = None
    timed_by: Detector | None = None
    reliable: bool = True
    revision: int = 0
    flaps: int = 0
    phase: Phase = "speaking"
    reason: SpeechEnd = "silence"
    """Why it ended; while pausing, the reason that applies if nothing else comes."""
    over_at: int = 0
    """When its end was reported, or when it was cut off."""
    paused_until: int = 0
    end_detected_wall: int | None = None
    """When the detector reported the end."""
    end_occurred_wall: int | None = None
    """When the end happened."""
    cut_ms: int | None = None
    """The latest possible end in the audio, where the end was not measured: for matching words only."""
    guessing: bool = False
    """Whether it has an interim that no final has answered."""
    guessed_to_ms: int | None = None
    """The end of that interim; None where it was not measured."""
    finals: list[Said] = field(default_factory=list)
    completed_as: int | None = None
    """The revision of its newest completion."""

    def ref(self) -> UtteranceRef:
        """The reference for the next event: each has a higher revision."""
        self.revision += 1
        return UtteranceRef(id=self.id, index=self.index, revision=self.revision)

    def guessed(self, span: Span) -> None:
        """Add an interim: its final is expected."""
        self.guessing, self.guessed_to_ms = True, span.end_ms if span.reliable else None

    def answered(self, span: Span, within_ms: int) -> None:
        """Add a final. It answers an interim that ends at most ``within_ms`` after it."""
        end = span.end_ms if span.reliable else None
        if end is None or self.guessed_to_ms is None:
            self.guessing = False
        else:
            limits = [ms for ms in (self.guessed_to_ms, self.end_ms, self.cut_ms) if ms is not None]
            self.guessing = self.guessing and min(limits) - end >= within_ms

    @property
    def current(self) -> bool:
        """Whether ``speech.ended`` has not been sent yet."""
        return self.phase in ("speaking", "pausing")

    @property
    def span(self) -> Span:
        return Span(self.onset_ms, self.end_ms, self.timed_by, self.reliable)

    @property
    def duration_ms(self) -> int | None:
        return None if self.onset_ms is None or self.end_ms is None else self.end_ms - self.onset_ms

    @property
    def outcome(self) -> Outcome:
        if not self.finals:
            return "no_transcript"
        return "transcribed" if self.heard else "no_vad"

    @property
    def untranscribed_ms(self) -> int:
        """The length of the speech after the last word of its finals; 0 where unknown."""
        spans = [said.span for said in self.finals]
        ends = [span.end_ms for span in spans if span.reliable and span.end_ms is not None]
        if self.end_ms is None or not self.reliable or len(ends) < len(spans):
            return 0
        return self.end_ms - max(ends, default=self.end_ms)

    def starts(self, span: Span) -> None:
        """Set the onset from a detector's measurement; an onset after the end is discarded."""
        if span.start_ms is not None and (self.end_ms is None or span.start_ms <= self.end_ms):
            self.onset_ms, self.timed_by, self.reliable = span.start_ms, span.timed_by, span.reliable

    def ends(self, span: Span) -> None:
        """Set the end from a detector's measurement; an end before the onset is discarded."""
        if span.end_ms is not None and (self.onset_ms is None or span.end_ms >= self.onset_ms):
            self.end_ms, self.timed_by = span.end_ms, span.timed_by
            self.reliable = self.reliable and span.reliable

    def go_by_words(self) -> None:
        """Without a measurement of the speech, use the span from the first word of its finals to the last."""
        if not self.finals:
            return
        first, last = self.finals[0].span, self.finals[-1].span
        if self.onset_ms is None and first.reliable:
            self.starts(first)
        if self.end_ms is None and last.reliable and self.reason == "silence":
            self.ends(last)

    def resume(self) -> None:
        """Resume after a pause."""
        self.phase, self.end_ms, self.end_detected_wall = "speaking", None, None
        self.flaps += 1

    def due_at(self, settings: TrackerSettings) -> int | None:
        """When its next step is due if no input comes before; None while it may continue without limit."""
        match self.phase:
            case "speaking":
                return None if self.heard else self.touched_at + settings.transcript_timeout_ms
            case "pausing":
                return self.paused_until
            case "settling":
                given_up_at = self.over_at + settings.transcript_timeout_ms
                if not self.finals or self.guessing or self.untranscribed_ms >= settings.untranscribed_ms:
                    return given_up_at
                return min(given_up_at, max(self.over_at, self.touched_at) + settings.final_grace_ms)
            case "completed":
                return None
