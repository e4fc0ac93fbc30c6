"""Checks the demo: every event delivered, in order, verified, and every start ended."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from relay.cli.receiver import Arrival
from relay.events.catalog import parse
from relay.events.envelope import StreamEvent
from relay.events.speech import SpeechEnded, SpeechStarted, TranscriptFinal, UtteranceCompleted
from relay.events.stream import StreamEnded, StreamStarted


@dataclass(frozen=True, slots=True)
class Report:
    """The demo's results. Latencies are from append to arrival, in milliseconds, of events not behind a retry."""

    requests: int
    delivered: int
    retries: int
    duplicates: int
    unverified: int
    out_of_order: int
    streams: int
    starts: int
    ends: int
    unpaired: int
    finals: int
    utterances: int
    missing: int
    p50_ms: float | None
    p95_ms: float | None

    @property
    def faults(self) -> list[str]:
        """The checks that failed; empty if none did."""
        checks = {
            "nothing was heard": self.starts == 0,
            f"{self.unverified} signatures did not verify": self.unverified > 0,
            f"{self.out_of_order} events arrived out of order or after a gap": self.out_of_order > 0,
            f"{self.unpaired} utterances lack their start, end or completion": self.unpaired > 0,
            f"{self.missing} events did not arrive": self.missing > 0,
        }
        return [fault for fault, is_so in checks.items() if is_so]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "faults": self.faults}


@dataclass
class Tally:
    """Records every request that the receiver got."""

    requests: int = 0
    retries: int = 0
    duplicates: int = 0
    unverified: int = 0
    out_of_order: int = 0
    _accepted: dict[str, StreamEvent] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)
    _last: dict[str, int] = field(default_factory=dict)
    _held_until: dict[str, int] = field(default_factory=dict)
    _latencies: list[float] = field(default_factory=list)

    def take(self, arrival: Arrival, *, accepted: bool) -> StreamEvent | None:
        """The event, if this is its first accepted arrival."""
        self.requests += 1
        if not arrival.verified:
            self.unverified += 1
            return None
        event = parse(arrival.body)
        if not isinstance(event, StreamEvent):
            return None
        if not accepted:
            self._refused.add(event.id)
            return None
        if event.id in self._accepted:
            self.duplicates += 1
            return None
        self._accepted[event.id] = event
        self._follow(event, arrival)
        return event

    def _follow(self, event: StreamEvent, arrival: Arrival) -> None:
        stream = event.stream.id
        last = self._last.get(stream, 0)
        # below the last one: the answer to an interim came too late for the dispatcher to count it as sent
        if event.stream.sequence <= last or int(arrival.headers["relay-previous-sequence"]) > last:
            self.out_of_order += 1
        self._last[stream] = event.stream.sequence
        appended_ns = round(event.timing.emitted_at.timestamp() * 1000) * 1_000_000
        if event.id in self._refused:
            self.retries += 1
            self._held_until[stream] = arrival.received_ns
        elif appended_ns > self._held_until.get(stream, 0):
            self._latencies.append((arrival.received_ns - appended_ns) / 1e6)

    @property
    def arrived(self) -> set[str]:
        """Ids of the accepted events."""
        return set(self._accepted)

    @property
    def ended(self) -> set[str]:
        """Ids of the streams whose last event was accepted."""
        return {event.stream.id for event in self._accepted.values() if isinstance(event, StreamEnded)}

    def report(self, *, missing: int) -> Report:
        """Compute the results. ``missing``: events of the log that the receiver should have and has not."""
        events = list(self._accepted.values())

        def utterances(kind: type[SpeechStarted | SpeechEnded | UtteranceCompleted]) -> list[str]:
            return sorted(event.utterance.id for event in events if isinstance(event, kind))

        starts, ends, completions = (utterances(kind) for kind in (SpeechStarted, SpeechEnded, UtteranceCompleted))
        quantiles = statistics.quantiles(self._latencies, n=20) if len(self._latencies) > 1 else None
        return Report(
            requests=self.requests,
            delivered=len(events),
            retries=self.retries,
            duplicates=self.duplicates,
            unverified=self.unverified,
            out_of_order=self.out_of_order,
            streams=sum(isinstance(event, StreamStarted) for event in events),
            starts=len(starts),
            ends=len(ends),
            unpaired=len(set(starts) ^ set(ends)) + len(set(starts) ^ set(completions)),
            finals=sum(isinstance(event, TranscriptFinal) for event in events),
            utterances=len(set(completions)),
            missing=missing,
            p50_ms=round(quantiles[9], 1) if quantiles else None,
            p95_ms=round(quantiles[18], 1) if quantiles else None,
        )
