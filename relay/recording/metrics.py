"""The metrics of capture: rooms, streams, detections and speech recognition."""

from collections import Counter as Multiset
from collections.abc import Mapping
from typing import get_args

from relay.events.envelope import StreamEvent
from relay.events.operator import CaptureLimit
from relay.events.speech import TranscriptFinal
from relay.events.stream import SourceFailed, SourceFailure, SourceName, SourceRecovered, StreamEnded, StreamStarted
from relay.speech.emission import TRANSCRIBERS
from relay.speech.observations import (
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SttEnded,
    SttStarted,
    SttTranscript,
    VadEnded,
    VadStarted,
)
from relay.telemetry.job_counts import Levels
from relay.telemetry.metrics import Counter, Histogram

_FINAL_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 5, 10, 30)

DETECTORS: Mapping[SourceName, str] = {
    "vad": "voice activity detection",
    "stt": "speech recognition",
    "session": "the agent session",
    "realtime": "the realtime model",
}

_DETECTIONS = {
    VadStarted: ("vad", "started"),
    VadEnded: ("vad", "ended"),
    SttStarted: ("stt", "started"),
    SttEnded: ("stt", "ended"),
    RealtimeStarted: ("realtime", "started"),
    RealtimeEnded: ("realtime", "ended"),
}


class CaptureMetrics:
    """Counted by a process that listens to a room."""

    def __init__(self) -> None:
        self.rooms = Counter("rooms_joined", "Rooms that the relay has joined.")
        self.streams = Counter("streams_started", "Audio tracks that the relay has begun to listen to.")
        self.ended = Counter("streams_ended", "Streams whose last event was made, by reason.", ("reason",))
        self.detections = Counter(
            "detections",
            "Reports of detectors: the starts and ends of speech, and transcripts.",
            ("detector", "kind"),
        )
        self.sources_failed = Counter(
            "sources_failed", "Outages of audio or a detector, as `source.failed` events report them.",
            ("detector", "reason"),
        )  # fmt: skip
        self.limited = Counter("capture_limited", "Times that a limit of `capture` was reached.", ("limit",))
        self.stt_failures = Counter(
            "stt_failures",
            "Failed connections to speech recognition or a realtime model, those that the first retry resolves"
            " included.",
            ("provider", "reason"),
        )
        self.stt_outages = Counter(
            "stt_outages", "Outages of speech recognition or a realtime model, by stream.", ("provider", "reason")
        )
        self.final_s = Histogram(
            "stt_time_to_final_seconds",
            "Time from the end of the last word of a final transcript to its arrival, where the provider times words.",
            _FINAL_S,
            ("provider",),
        )
        self.dropped = Counter(
            "interims_dropped", "Interims that were not recorded, because 256 events waited for the log."
        )
        self._participants: Multiset[str] = Multiset()
        """Open streams by participant sid."""
        self._down: set[tuple[str, SourceName]] = set()
        """The outages at this moment, by stream id and source."""

    @property
    def families(self) -> tuple[Counter | Histogram, ...]:
        return (
            self.rooms, self.streams, self.ended, self.detections, self.sources_failed, self.limited, self.stt_failures,
            self.stt_outages, self.final_s, self.dropped,
        )  # fmt: skip

    def levels(self) -> Levels:
        """What is heard at this moment."""
        down = Multiset(source for _, source in self._down)
        return {
            "streams": self._participants.total(),
            "participants": len(self._participants),
            **{f"{source}_down": down[source] for source in DETECTORS},
        }

    def summary(self) -> Mapping[str, int]:
        """What was heard since the start, for a log line."""
        return {
            "tracks": int(self.streams.value()),
            "finals": int(self.detections.value(kind="final")),
            "outages": int(self.sources_failed.value()),
            "interims_dropped": int(self.dropped.value()),
        }

    def observed(self, observation: Observation) -> None:
        if isinstance(observation, SttTranscript):
            self.detections.inc((observation.detector, "final" if observation.final else "interim"))
        elif labels := _DETECTIONS.get(type(observation)):
            self.detections.inc(labels)

    def made(self, event: StreamEvent) -> None:
        """A stream's event was made."""
        match event:
            case TranscriptFinal():
                self._final(event)
            case StreamStarted():
                self.streams.inc()
                self._participants[event.participant.sid] += 1
                for reason in get_args(SourceFailure):
                    self.stt_outages.show((_provider(event), reason))
            case StreamEnded():
                self.ended.inc((event.data.reason,))
                self._participants -= Multiset((event.participant.sid,))
                self._down = {each for each in self._down if each[0] != event.stream.id}
            case SourceFailed(data=data):
                self.sources_failed.inc((data.detector, data.reason))
                self._down.add((event.stream.id, data.detector))
                if data.detector in TRANSCRIBERS:
                    self.stt_outages.inc((_provider(event), data.reason))
            case SourceRecovered(data=data):
                self._down.discard((event.stream.id, data.detector))
            case _:
                pass

    def stt_failed(self, provider: str | None, source: SourceName, reason: SourceFailure) -> None:
        """A detector's connection failed."""
        if source in TRANSCRIBERS:
            self.stt_failures.inc((provider or "", reason))

    def reached(self, limit: CaptureLimit) -> None:
        """A limit of ``capture`` was reached."""
        self.limited.inc((limit,))

    def _final(self, event: TranscriptFinal) -> None:
        timing = event.timing
        if timing.occurred_at and timing.reliable:
            self.final_s.observe(
                max(0.0, (timing.detected_at - timing.occurred_at).total_seconds()), (_provider(event),)
            )


def _provider(event: StreamEvent) -> str:
    """What transcribes the stream: the provider and its model."""
    return event.source.stt or event.source.realtime or ""
