"""The life cycle of utterances: open, resume, end, complete, and the events of each step.

At most one is current (``speech.started`` sent, ``speech.ended`` not); it is the newest of the live utterances.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from relay.events.detectors import VadEnd
from relay.events.envelope import Detector
from relay.events.speech import SpeechEnd
from relay.speech import emission as fused
from relay.speech.context import CLOSE_WAIT_MS, KEPT_UTTERANCES, OUTAGE_WAIT_MS, TrackerSettings
from relay.speech.emission import Emission
from relay.speech.placement import lies_in, place, place_interim, timed
from relay.speech.timing import AudioClock, Span
from relay.speech.utterance import Said, Utterance


class Lifecycle:
    """The utterances of one stream. ``now`` is waiting time in milliseconds."""

    def __init__(
        self, emission: Emission, clock: AudioClock, settings: TrackerSettings, ids: Callable[[], str], *, texts: bool
    ) -> None:
        self._emission: Final = emission
        self._clock: Final = clock
        self._settings: Final = settings
        self._ids: Final = ids
        self._texts: Final = texts
        self._live: list[Utterance] = []
        self._done: deque[Utterance] = deque(maxlen=KEPT_UTTERANCES)
        self._guess: tuple[str, Utterance] | None = None
        """The newest interim, and the utterance it was assigned to, until a final answers it."""
        self.opened = 0
        """The number of utterances the stream has had."""
        self.transcribed: Utterance | None = None
        """The newest utterance that has a final, live or not."""
        self.leaving: SpeechEnd | None = None
        """Why no more audio will come, once known: it cut off any speech that stops afterwards."""

        self._deaf_since: int | None = None
        """When the transcriber last failed; None where it never has."""
        self._deaf_until: int | None = None
        """When the transcriber recovered; None while it has not."""

    @property
    def current(self) -> Utterance | None:
        """The utterance whose speech has not ended."""
        return self._live[-1] if self._live and self._live[-1].current else None

    def hear(self, detector: Detector, span: Span, now: int) -> tuple[Utterance, bool]:
        """Handle the start of voice activity: return its utterance, and whether it is new and not yet announced."""
        current = self.current
        if current is not None and current.phase == "pausing" and not self._resumes(current, span):
            self._settle(current)
            current = None
        if current is None:
            return self._open(detector, span, heard=True, now=now), True
        if current.phase == "pausing":
            current.resume()
        elif not current.heard:
            current.heard = True
            current.starts(span)
        return current, False

    def announce(self, utterance: Utterance) -> None:
        """Emit ``speech.started``."""
        fused.speech_started(self._emission, utterance, self._clock.wall(utterance.onset_ms))

    def quiet(self, utterance: Utterance, span: Span, reason: VadEnd, now: int) -> None:
        """Handle the end of voice activity. A pause may be resumed within the merge gap; after a detector closes, the
        reason is still to come; after a flush, the detector counts as lost."""
        if utterance.phase != "speaking":
            return
        utterance.ends(span)
        utterance.over_at, utterance.end_detected_wall = now, self._emission.now
        utterance.reason = self.leaving or ("silence" if reason == "silence" else "detector_lost")
        wait = {"silence": self._settings.merge_gap_ms, "closed": CLOSE_WAIT_MS, "flushed": 0}[reason]
        wait = 0 if self.leaving else wait
        if wait > 0:
            utterance.phase, utterance.paused_until = "pausing", now + wait
        else:
            self._settle(utterance)

    def interim(self, said: Said, now: int) -> Utterance:
        """Return the utterance that an interim belongs to. Each live one that it covers waits for its final."""
        utterance = place_interim(said, self._live, self._done) or self._open_silently(said, now)
        self._guess = said.text, utterance
        utterance.touched_at = now
        for each in (*self._live, utterance):
            if each is utterance or lies_in(said.span, each, self._live):
                each.guessed(said.span)
        return utterance

    def final(self, said: Said, now: int) -> None:
        """Emit each part of a final in its utterance. Text without voice activity ends its own utterance; a completed
        utterance is completed again."""
        parts = place(said, self._live, self._done) if timed(said.span) else [(said, self._without_times(said, now))]
        owners = {owner.id: owner for owner in [self._said(part, known, now) for part, known in parts]}
        for owner in owners.values():
            if owner.phase == "completed":
                fused.utterance_completed(self._emission, owner)
            elif owner.phase == "speaking" and not owner.heard:
                if owner.onset_ms is None:
                    owner.starts(owner.finals[0].span)
                owner.ends(owner.finals[-1].span)
                self._end(owner)
                self._complete(owner)

    def withdrawn(self) -> None:
        """Handle an empty final: the provider has no text for its last interim, so no final of it is expected."""
        if self._guess is not None:
            self._guess[1].guessing = False

    def _said(self, said: Said, utterance: Utterance | None, now: int) -> Utterance:
        utterance = utterance or self._open_silently(said, now)
        utterance.finals.append(said)
        utterance.touched_at = now
        utterance.answered(said.span, self._settings.untranscribed_ms)
        if self._guess is not None and self._guess[1] is utterance and not utterance.guessing:
            self._guess = None
        if self.transcribed is None or utterance.index >= self.transcribed.index:
            self.transcribed = utterance
        fused.transcript_final(self._emission, utterance, said, self._clock.wall(said.span.end_ms))
        return utterance

    def _without_times(self, said: Said, now: int) -> Utterance | None:
        """The oldest utterance that is over and has no final; else the oldest that is over; else the current one.

        A completed utterance qualifies only if its interim was never answered: the session repeats an interim as a
        final when it is closed, and a provider without times may answer after the utterance was given up.
        """
        text, late = self._guess or ("", None)
        if late is not None and late.phase != "completed":
            late = None
        if late is not None and not said.provided and said.text == text:
            return late
        if self._live:
            over = [utterance for utterance in self._live if utterance.phase != "speaking"]
            waiting = [utterance for utterance in over if not utterance.finals]
            return (waiting or over or self._live[-1:])[0]
        if late is not None and late.guessing and now <= max(late.over_at, late.touched_at) + OUTAGE_WAIT_MS:
            return late
        return None

    def transcriber_down(self, now: int) -> None:
        """The transcriber failed. Its audio may be buffered, so the wait for texts is longer."""
        self._deaf_since, self._deaf_until = now, None

    def transcriber_up(self, now: int) -> None:
        """The transcriber recovered, and gets the buffered audio."""
        self._deaf_until = now

    def cut(self, reason: SpeechEnd, now: int) -> None:
        """Something cuts the current utterance off. Speech that had paused ended by itself before that."""
        current = self.current
        if current is None:
            return
        if current.phase == "speaking":
            current.over_at = now
        if current.phase == "speaking" or current.reason != "silence":
            current.reason = reason
        self._settle(current)

    def close(self, reason: SpeechEnd, now: int) -> None:
        """No more input comes: cut the current utterance off and complete all."""
        self.cut(reason, now)
        for utterance in tuple(self._live):
            self._complete(utterance)

    def advance(self, now: int, final_due: int | None) -> None:
        """Run the due steps. ``final_due`` is when the next final that still waits for the session is released."""
        for utterance in tuple(self._live):
            while (due := self._due(utterance, final_due)) is not None and due <= now:
                match utterance.phase:
                    case "pausing":
                        self._settle(utterance)
                    case "settling":
                        self._complete(utterance)
                    case _:
                        self._end(utterance)
                        self._complete(utterance)

    def deadline(self, final_due: int | None) -> int | None:
        """When ``advance`` is next due; None while nothing is pending."""
        dues = (self._due(utterance, final_due) for utterance in self._live)
        return min((due for due in dues if due is not None), default=None)

    def _due(self, utterance: Utterance, final_due: int | None) -> int | None:
        due = utterance.due_at(self._settings)
        if due is None or utterance.phase == "pausing":
            return due
        due = max(due, self._worth_waiting(utterance))
        if final_due is None:
            return due
        # The final may belong to this utterance. A session that reports nothing at all must not block it forever,
        # though.
        return max(due, min(final_due, due + self._settings.join_timeout_ms))

    def _worth_waiting(self, utterance: Utterance) -> int:
        """The time until which a text may still come late, because the transcriber is, or was, down."""
        over_at = utterance.over_at if utterance.phase == "settling" else utterance.touched_at
        if self._deaf_since is None or (utterance.finals and over_at < self._deaf_since):
            return over_at
        longest = over_at + OUTAGE_WAIT_MS
        if self._deaf_until is None:
            return longest
        if over_at > self._deaf_until:
            return over_at
        if utterance.finals and utterance.touched_at >= self._deaf_until:
            return min(longest, utterance.touched_at + self._settings.final_grace_ms)
        return min(longest, self._deaf_until + self._settings.transcript_timeout_ms)

    def _resumes(self, utterance: Utterance, span: Span) -> bool:
        if utterance.reason != "silence":
            return False
        if utterance.end_ms is None or span.start_ms is None:
            return True
        return span.start_ms - utterance.end_ms <= self._settings.merge_gap_ms

    def _open(self, detector: Detector, span: Span, *, heard: bool, now: int) -> Utterance:
        utterance = Utterance(self._ids(), self.opened, detector, heard, now)
        utterance.starts(span)
        self.opened += 1
        self._live.append(utterance)
        return utterance

    def _open_silently(self, said: Said, now: int) -> Utterance:
        utterance = self._open(said.detector, said.span, heard=False, now=now)
        self.announce(utterance)
        return utterance

    def _settle(self, utterance: Utterance) -> None:
        self._end(utterance)
        if not self._texts:
            self._complete(utterance)

    def _end(self, utterance: Utterance) -> None:
        utterance.phase = "settling"
        utterance.go_by_words()
        if utterance.end_ms is None:
            utterance.cut_ms = self._cut_at(utterance)
        if utterance.end_occurred_wall is None:  # set once: later anchors would give another time
            utterance.end_occurred_wall = self._clock.wall(utterance.end_ms)
        fused.speech_ended(self._emission, utterance)

    def _cut_at(self, utterance: Utterance) -> int | None:
        """The latest possible end of an utterance whose end was not measured; None where that is unknown too."""
        known = [ms for said in utterance.finals if said.span.reliable and (ms := said.span.end_ms) is not None]
        if utterance.guessed_to_ms is not None:
            known.append(utterance.guessed_to_ms)
        if (utterance.heard or not known) and (now := self._clock.media(self._emission.now)) is not None:
            known.append(now)
        return max(known, default=None)

    def _complete(self, utterance: Utterance) -> None:
        utterance.phase = "completed"
        self._live.remove(utterance)
        self._done.append(utterance)
        fused.utterance_completed(self._emission, utterance)
