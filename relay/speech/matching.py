"""Matches reports of the same words.

A final is reported twice: by the provider, with words and times, and right after it by the session, without. Both have
the same text and come in the same order.
"""

from collections import deque
from dataclasses import dataclass, replace

from relay.events.speech import Word
from relay.speech.observations import SttTranscript, Transcribed
from relay.speech.timing import Span
from relay.speech.utterance import Said

_REMEMBERED = 128
"""The number of finals remembered to drop repetitions."""


class Joiner:
    """Joins the provider's finals into the session's.

    A session final takes the oldest waiting provider final with its text. The session reports in order, so it will not
    report a provider final that it skipped: that one is released first, as the provider's. A session final without a
    match is released at once, with the words of the provider's current interim if it repeats that (as a closing session
    does), otherwise without words. No final waits for longer than the timeout.

    A provider final that repeats an earlier one (see :class:`Repeats`) is dropped, and so is the session's report of
    it.
    """

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._finals: deque[_WaitingFinal] = deque()
        self._repeats = Repeats()
        self._interim: SttTranscript | None = None

    @property
    def deadline(self) -> int | None:
        """When the oldest waiting final is released without a session report; None with none waiting."""
        return self._finals[0].due if self._finals else None

    def provided(self, transcript: SttTranscript, now: int) -> None:
        """Handle a transcript of the provider."""
        if not transcript.final:
            self._interim = transcript
            return
        again = self._repeats.take(transcript)
        self._finals.append(_WaitingFinal(now + self._timeout_ms, transcript, again))
        if not again:
            self._interim = None

    def interim(self, report: Transcribed) -> Said:
        """Handle an interim of the session."""
        twin = self._interim
        return _joined(report, twin if twin is not None and twin.text == report.text else None)

    def final(self, report: Transcribed) -> list[Said]:
        """Handle a final of the session: return it last, after the provider finals that it skipped."""
        if all(waiting.transcript.text != report.text for waiting in self._finals):
            said, guess = self.interim(report), self._interim
            if not said.provided or guess is None:
                return [said]
            self._interim = None
            return [] if self._repeats.take(guess) else [replace(said, provided=False)]
        passed_over = list[Said]()
        while (twin := self._finals.popleft()).transcript.text != report.text:
            passed_over.extend(twin.alone())
        return passed_over if twin.again else [*passed_over, _joined(report, twin.transcript)]

    def expired(self, now: int) -> list[Said]:
        """Return the finals that the session has not reported in time."""
        said = list[Said]()
        while self._finals and self._finals[0].due <= now:
            said.extend(self._finals.popleft().alone())
        return said

    def flush(self) -> list[Said]:
        """Return all waiting finals: the session reports nothing more."""
        said = [said for waiting in self._finals for said in waiting.alone()]
        self._finals.clear()
        return said


class Repeats:
    """Recognizes a final that a provider reports a second time, as some do after they reconnect.

    A repetition has the same words at the same times or, for a realtime model, the same text and item. Without reliable
    times a repetition is indistinguishable from words that were spoken again: it counts as the latter.
    """

    def __init__(self) -> None:
        self._known: deque[tuple[object, ...]] = deque(maxlen=_REMEMBERED)

    def take(self, final: SttTranscript) -> bool:
        """Whether this final was seen before."""
        what = _identity(final)
        if what is None or what in self._known:
            return what is not None
        self._known.append(what)
        return False


def _identity(final: SttTranscript) -> tuple[object, ...] | None:
    if final.detector == "realtime" and final.request_id is not None:
        return final.request_id, final.text
    times = [(word.start_ms, word.end_ms) for word in final.words]
    whole = final.start_ms, final.end_ms
    if not final.reliable or all(ms is None for pair in (whole, *times) for ms in pair):
        return None
    return final.text, whole, tuple(times)


@dataclass(frozen=True, slots=True)
class _WaitingFinal:
    """A provider final that the session has yet to report; ``again``: it was reported before."""

    due: int
    transcript: SttTranscript
    again: bool

    def alone(self) -> list[Said]:
        return [] if self.again else [_alone(self.transcript)]


def _joined(report: Transcribed, twin: SttTranscript | None) -> Said:
    if twin is None:
        return Said(report.text, "session", report.language, report.speaker_id, provided=False)
    return Said(
        report.text,
        "session",
        report.language or twin.language,
        report.speaker_id or twin.speaker_id,
        twin.confidence,
        _words(twin),
        _span(twin),
    )


def _alone(twin: SttTranscript) -> Said:
    return Said(twin.text, twin.detector, twin.language, twin.speaker_id, twin.confidence, _words(twin), _span(twin))


def _words(transcript: SttTranscript) -> tuple[Word, ...]:
    return tuple(
        Word(text=word.text, start_ms=word.start_ms, end_ms=word.end_ms, confidence=word.confidence)
        for word in transcript.words
    )


def _span(transcript: SttTranscript) -> Span:
    """From the words where they have times, else as the provider gave it. An end before its start counts as unknown."""
    starts = [word.start_ms for word in transcript.words if word.start_ms is not None]
    ends = [word.end_ms for word in transcript.words if word.end_ms is not None]
    start = min(starts) if starts else transcript.start_ms
    end = max(ends) if ends else transcript.end_ms
    if start is not None and end is not None and end < start:
        end = None
    timed_by = None if start is None and end is None else transcript.detector
    return Span(start, end, timed_by, transcript.reliable)
