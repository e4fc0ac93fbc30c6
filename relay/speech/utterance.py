"""What is known about one stretch of speech, from its first sign to its completion."""

from dataclasses import dataclass, field
from typing import Literal

from relay.events.envelope import Detector, UtteranceRef
from relay.events.speech import Outcome, SpeechEnd
from relay.events.transcript import Word
from relay.speech.settings import TrackerSettings
from relay.speech.timing import NOWHERE, Span

Phase = Literal["speaking", "pausing", "settling", "completed"]
"""speaking; pausing: the detector heard the end, but the speech may resume or the reason is not known yet;
settling: over, a transcript may still come; completed: nothing comes any more."""


@dataclass(frozen=True, slots=True)
class Said:
    """A transcript as the relay reports it: once, with all that is known about it."""

    text: str
    detector: Detector
    """Who reported it: the session, or the provider alone."""
    language: str | None = None
    speaker_id: str | None = None
    confidence: float | None = None
    words: tuple[Word, ...] = ()
    span: Span = NOWHERE
    provided: bool = True
    """Whether the provider reported it; False: the session alone."""


@dataclass(slots=True)
class Utterance:
    """Waiting times (``*_at``, without ``wall``) are of the tracker's waiting clock."""

    id: str
    index: int
    opened_by: Detector
    heard: bool
    """Whether the detector of voice activity heard it. Otherwise there is only text."""
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
    """Why it ended; while pausing, why it will have if nothing else comes."""
    over_at: int = 0
    """When its end was reported, or what cut it off."""
    paused_until: int = 0
    end_detected_wall: int | None = None
    """When the detector reported the end."""
    end_occurred_wall: int | None = None
    """When the end was heard."""
    cut_ms: int | None = None
    """Where in the audio it was over at the latest, where nobody measured its end: for finding its words only."""
    guessing: bool = False
    """Whether there is an interim that no final has answered."""
    guessed_to_ms: int | None = None
    """Where that interim ends; None where nobody measured it."""
    finals: list[Said] = field(default_factory=list)
    completed_as: int | None = None
    """The revision of its newest completion."""

    def ref(self) -> UtteranceRef:
        """The reference for one more event: each has a higher revision."""
        self.revision += 1
        return UtteranceRef(id=self.id, index=self.index, revision=self.revision)

    def guessed(self, span: Span) -> None:
        """An interim: its final is waited for."""
        self.guessing, self.guessed_to_ms = True, span.end_ms if span.reliable else None

    def answered(self, span: Span, within_ms: int) -> None:
        """A final: it answers an interim that does not go on for longer than ``within_ms`` after it."""
        end = span.end_ms if span.reliable else None
        if end is None or self.guessed_to_ms is None:
            self.guessing = False
        else:
            limits = [ms for ms in (self.guessed_to_ms, self.end_ms, self.cut_ms) if ms is not None]
            self.guessing = self.guessing and min(limits) - end >= within_ms

    @property
    def current(self) -> bool:
        """Whether ``speech.ended`` has not been said yet."""
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
    def untold_ms(self) -> int:
        """How much speech there was after the last word of its finals; 0 where that is not known."""
        spans = [said.span for said in self.finals]
        ends = [span.end_ms for span in spans if span.reliable and span.end_ms is not None]
        if self.end_ms is None or not self.reliable or len(ends) < len(spans):
            return 0
        return self.end_ms - max(ends, default=self.end_ms)

    def starts(self, span: Span) -> None:
        """Take the onset from whoever measured it; one behind the end is no measurement."""
        if span.start_ms is not None and (self.end_ms is None or span.start_ms <= self.end_ms):
            self.onset_ms, self.timed_by, self.reliable = span.start_ms, span.timed_by, span.reliable

    def ends(self, span: Span) -> None:
        """Take the end from whoever measured it; one before the onset is no measurement."""
        if span.end_ms is not None and (self.onset_ms is None or span.end_ms >= self.onset_ms):
            self.end_ms, self.timed_by = span.end_ms, span.timed_by
            self.reliable = self.reliable and span.reliable

    def go_by_words(self) -> None:
        """Where no detector measured the speech itself, it goes from the first word of its finals to the last."""
        if not self.finals:
            return
        first, last = self.finals[0].span, self.finals[-1].span
        if self.onset_ms is None and first.reliable:
            self.starts(first)
        if self.end_ms is None and last.reliable and self.reason == "silence":
            self.ends(last)

    def resume(self) -> None:
        """It was only a pause."""
        self.phase, self.end_ms, self.end_detected_wall = "speaking", None, None
        self.flaps += 1

    def due_at(self, settings: TrackerSettings) -> int | None:
        """When its next step is due if nothing comes before; None while it may go on for as long as it likes."""
        match self.phase:
            case "speaking":
                return None if self.heard else self.touched_at + settings.transcript_timeout_ms
            case "pausing":
                return self.paused_until
            case "settling":
                given_up_at = self.over_at + settings.transcript_timeout_ms
                if not self.finals or self.guessing or self.untold_ms >= settings.untold_ms:
                    return given_up_at
                return min(given_up_at, max(self.over_at, self.touched_at) + settings.final_grace_ms)
            case "completed":
                return None
