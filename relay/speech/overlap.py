"""Detects overlapping speech in a room from the fused starts and ends of its streams.

Speech is reported after it happened, and its start sooner than its end: a detector waits half a second before it
reports an end. So an overlap is only certain for a past moment for which all reports have arrived. The tracker stays
that far behind (``lag_ms``), processes starts and ends in the order in which they happened, not in the order of the
reports, and emits ``overlap.started`` once it is certain. Crosstalk shorter than ``min_ms`` is no overlap.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.clock import epoch_ms
from relay.events.envelope import RoomEvent, RoomRef, Source, StreamEvent
from relay.events.speech import (
    OverlapEnded,
    OverlapEndedData,
    OverlapStarted,
    OverlapStartedData,
    Speaker,
    SpeechEnd,
    SpeechEnded,
    SpeechStarted,
)
from relay.speech.emission import RoomEmission
from relay.speech.timing import Waiting


@dataclass(frozen=True, slots=True)
class OverlapSettings:
    """All in milliseconds."""

    min_ms: int = 300
    """The minimum duration of an overlap."""
    lag_ms: int = 850
    """The maximum delay of an end-of-speech report. A later report still counts, but may end an overlap that was
    already reported as started and turns out to be shorter than ``min_ms``."""


@dataclass(frozen=True, slots=True, order=True)
class _Boundary:
    """A start or an end of speech. ``at`` is waiting time."""

    at: int
    ends: bool
    """At the same moment starts sort first: speech that starts as another ends touches it."""
    number: int
    """Orders edges of the same moment by their reports."""
    speaker: Speaker = field(compare=False)
    reason: SpeechEnd = field(compare=False)
    wall: int | None = field(compare=False)
    """When it happened by the wall clock; None where it was not measured and ``at`` is the time of the report."""
    reliable: bool = field(compare=False)
    source: Source = field(compare=False)


@dataclass(slots=True)
class _Overlap:
    id: str
    began: _Boundary
    """The start of the speech that made it two."""
    speakers: list[Speaker]
    peak: int
    said: bool = False


class OverlapTracker:
    """The state machine of one room. ``now`` is wall time in epoch milliseconds.

    ``steady`` is elapsed time in milliseconds, by which the tracker waits, so that the wall clock may be set. ``ids``
    makes overlap ids. Call ``tick`` when ``deadline`` is reached; earlier or later does no harm.
    """

    def __init__(self, room: RoomRef, stream_id: str, settings: OverlapSettings, ids: Callable[[], str]) -> None:
        self._settings = settings
        self._ids = ids
        self._emission = RoomEmission(room, stream_id)
        self._waiting = Waiting()
        self._boundaries: list[_Boundary] = []
        """Reported edges that are not past yet, in the order in which they happened."""
        self._numbered = 0
        self._began: dict[str, int] = {}
        """Utterance → its start time, for utterances without a reported end."""
        self._speaking: dict[str, _Boundary] = {}
        """Utterance → its start."""
        self._overlap: _Overlap | None = None

    @property
    def deadline(self) -> int | None:
        """Epoch milliseconds at which ``tick`` is due; None while nothing is pending."""
        dues = [self._boundaries[0].at] if self._boundaries else []
        if self._overlap is not None and not self._overlap.said:
            dues.append(self._overlap.began.at + self._least_ms)
        return self._waiting.wall(min(dues) + self._settings.lag_ms) if dues else None

    def observe(self, event: StreamEvent, now: int, steady: int) -> list[RoomEvent]:
        """Take an event of one of the room's streams, reported at ``now``, and return the resulting events."""
        waiting = self._waiting.advance(now, steady)
        utterance = event.utterance.id if event.utterance is not None else ""
        if isinstance(event, SpeechStarted) and utterance not in self._began:
            began = self._began[utterance] = _placed(event, now, waiting)
            self._add_boundary(began, event, "silence", ends=False)
        elif isinstance(event, SpeechEnded) and utterance in self._began:
            self._add_boundary(
                max(_placed(event, now, waiting), self._began.pop(utterance)), event, event.data.reason, ends=True
            )
        return self.tick(now, steady)

    def tick(self, now: int, steady: int) -> list[RoomEvent]:
        """Run the steps due at ``now``."""
        self._emission.at(now)
        past = self._waiting.advance(now, steady) - self._settings.lag_ms
        while self._boundaries and self._boundaries[0].at <= past:
            self._pass(self._boundaries.pop(0))
        self._confirm(past)
        return self._emission.take()

    def close(self, now: int, reason: SpeechEnd = "shutdown") -> list[RoomEvent]:
        """End the input: no more reports come. An overlap in progress ends without a time."""
        self._emission.at(now)
        for boundary in self._boundaries:
            self._pass(boundary)
        self._boundaries.clear()
        if self._overlap is not None and self._overlap.said:
            self._end(self._overlap, reason, self._overlap.began.source)
        self._speaking.clear()
        self._began.clear()
        self._overlap = None
        return self._emission.take()

    @property
    def _least_ms(self) -> int:
        # touching speech shares no time
        return max(self._settings.min_ms, 1)

    def _add_boundary(self, at: int, event: SpeechStarted | SpeechEnded, reason: SpeechEnd, *, ends: bool) -> None:
        self._numbered += 1
        occurred = event.timing.occurred_at
        speaker = Speaker(
            identity=event.participant.identity,
            sid=event.participant.sid,
            stream_id=event.stream.id,
            utterance_id=event.utterance.id,
        )
        wall = None if occurred is None else epoch_ms(occurred)
        insort(
            self._boundaries,
            _Boundary(at, ends, self._numbered, speaker, reason, wall, event.timing.reliable, event.source),
        )

    def _pass(self, boundary: _Boundary) -> None:
        """Process an edge that is past: no earlier one will be reported."""
        self._confirm(boundary.at)
        if boundary.ends:
            del self._speaking[boundary.speaker.utterance_id]
        else:
            self._speaking[boundary.speaker.utterance_id] = boundary
        at_once = len({start.speaker.identity for start in self._speaking.values()})
        overlap = self._overlap
        if overlap is None:
            if at_once > 1:
                self._overlap = self._begun(boundary)
        elif at_once > 1:
            overlap.peak = max(overlap.peak, at_once)
            if not boundary.ends:
                overlap.speakers.append(boundary.speaker)
        else:
            if overlap.said:
                self._end(overlap, boundary.reason, boundary.source, boundary)
            self._overlap = None

    def _begun(self, second: _Boundary) -> _Overlap:
        starts = sorted(self._speaking.values())
        # the second to be reported, which started later unless it was reported too late
        first = next(start for start in starts if start.speaker.identity != second.speaker.identity)
        return _Overlap(self._ids(), max(first, second), [start.speaker for start in starts], peak=2)

    def _confirm(self, at: int) -> None:
        overlap = self._overlap
        if overlap is None or overlap.said or at - overlap.began.at < self._least_ms:
            return
        overlap.said = True
        data = OverlapStartedData(overlap_id=overlap.id, speakers=tuple(overlap.speakers))
        began = overlap.began
        self._emission.write(OverlapStarted, data, began.source, occurred_wall=began.wall, reliable=began.reliable)

    def _end(self, overlap: _Overlap, reason: SpeechEnd, source: Source, ended: _Boundary | None = None) -> None:
        began = overlap.began
        measured = ended is not None and ended.wall is not None and began.wall is not None
        data = OverlapEndedData(
            overlap_id=overlap.id,
            reason=reason,
            # never negative: an end that was reported too late may lie before the overlap that it ends
            duration_ms=max(ended.at - began.at, 0) if ended is not None and measured else None,
            peak=overlap.peak,
            speakers=tuple(overlap.speakers),
        )
        self._emission.write(
            OverlapEnded,
            data,
            source,
            occurred_wall=None if ended is None else ended.wall,
            reliable=began.reliable and (ended is None or ended.reliable),
        )


def _placed(event: StreamEvent, now: int, waiting: int) -> int:
    """When it happened, in waiting time; where that is unknown or impossible, when it was reported."""
    occurred = event.timing.occurred_at
    return waiting if occurred is None else waiting - max(now - epoch_ms(occurred), 0)
