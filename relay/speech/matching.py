"""Which reports are of the same words, and which utterance the words belong to.

A final is reported twice: by the provider, with words and times, and right after it by the session, without. The two
have the same text and come in the same order.
"""

from collections import deque
from collections.abc import Sequence

from relay.events.transcript import Word
from relay.speech.observations import SttTranscript, Transcribed
from relay.speech.timing import Span
from relay.speech.utterance import Said, Utterance

_FOREVER = 2**62


class Joiner:
    """Joins the provider's finals into the session's.

    A session final takes the oldest waiting provider's final of its text. The session reports in order, so what it
    passed over it will not report: that goes out first, as the provider's. A session final that finds none goes out
    at once, without words. Nothing is held for longer than the timeout.
    """

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._finals: deque[tuple[int, SttTranscript]] = deque()
        self._interim: SttTranscript | None = None

    @property
    def deadline(self) -> int | None:
        """When the oldest waiting final is to be reported as it is; None with none waiting."""
        return self._finals[0][0] if self._finals else None

    def provided(self, transcript: SttTranscript, now: int) -> None:
        """The provider reports a transcript."""
        if transcript.final:
            self._interim = None
            self._finals.append((now + self._timeout_ms, transcript))
        else:
            self._interim = transcript

    def interim(self, report: Transcribed) -> Said:
        """The session reports an interim."""
        twin = self._interim
        return _joined(report, twin if twin is not None and twin.text == report.text else None)

    def final(self, report: Transcribed) -> list[Said]:
        """The session reports a final: it comes last, before it what it passed over."""
        if all(waiting.text != report.text for _, waiting in self._finals):
            return [_joined(report, None)]
        said = []
        while (twin := self._finals.popleft()[1]).text != report.text:
            said.append(_alone(twin))
        return [*said, _joined(report, twin)]

    def expired(self, now: int) -> list[Said]:
        """What the session has not reported in time."""
        said = []
        while self._finals and self._finals[0][0] <= now:
            said.append(_alone(self._finals.popleft()[1]))
        return said

    def flush(self) -> list[Said]:
        """All that waits: the session reports nothing any more."""
        said = [_alone(waiting) for _, waiting in self._finals]
        self._finals.clear()
        return said


def owner(said: Said, live: Sequence[Utterance]) -> Utterance | None:
    """The utterance that a final belongs to, of those not yet completed, oldest first; None when there is none.

    With reliable times: the one that its words overlap most, then the one that lies nearest. Without: the oldest that
    is over and still waits for its first final, else the oldest that is over, else the one being spoken.
    """
    if not live:
        return None
    bounds = _bounds(said.span)
    if bounds is None or not said.span.reliable:
        over = [utterance for utterance in live if utterance.phase != "speaking"]
        waiting = [utterance for utterance in over if not utterance.finals]
        return (waiting or over or live[-1:])[0]
    best, best_fit = live[0], (-1, -_FOREVER)
    for utterance, following in zip(live, [*live[1:], None], strict=True):
        if utterance.onset_ms is None:
            continue
        # Nobody measured the end of muted speech, and the current has none yet: the next onset bounds it.
        end = utterance.end_ms
        if end is None:
            end = following.onset_ms if following is not None and following.onset_ms is not None else _FOREVER
        fit = (
            sum(max(_overlap(word_bounds, utterance.onset_ms, end), 0) for word_bounds in _timed(said.words)),
            _overlap(bounds, utterance.onset_ms, end),
        )
        if fit > best_fit:
            best, best_fit = utterance, fit
    return best


def _overlap(bounds: tuple[int, int], start: int, end: int) -> int:
    """Shared milliseconds; negative, the gap between them."""
    return min(bounds[1], end) - max(bounds[0], start)


def _timed(words: tuple[Word, ...]) -> list[tuple[int, int]]:
    return [(word.start_ms, word.end_ms) for word in words if word.start_ms is not None and word.end_ms is not None]


def _bounds(span: Span) -> tuple[int, int] | None:
    start = span.start_ms if span.start_ms is not None else span.end_ms
    end = span.end_ms if span.end_ms is not None else span.start_ms
    return None if start is None or end is None else (start, end)


def _joined(report: Transcribed, twin: SttTranscript | None) -> Said:
    if twin is None:
        return Said(report.text, "session", report.language, report.speaker_id)
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
    """From the words where they have times, else as the provider gave it; an end before its start is not known."""
    starts = [word.start_ms for word in transcript.words if word.start_ms is not None]
    ends = [word.end_ms for word in transcript.words if word.end_ms is not None]
    start = min(starts) if starts else transcript.start_ms
    end = max(ends) if ends else transcript.end_ms
    if start is not None and end is not None and end < start:
        end = None
    timed_by = None if start is None and end is None else transcript.detector
    return Span(start, end, timed_by, transcript.reliable)
