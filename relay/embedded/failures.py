"""Turns a session's reports of detector failures into outages, and decides when they end."""

from dataclasses import dataclass
from typing import Literal

from livekit.agents import ErrorEvent, llm, stt

from relay.capture.health.faults import describe, kind_of
from relay.capture.health.outages import Outages
from relay.capture.realtime.faults import describe_failure, kind_of_failure
from relay.events.source import SourceFailure
from relay.speech.observations import (
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
)

Transcriber = Literal["stt", "realtime"]

QUIET_S = 15.0
"""LiveKit retries within 2 s and gives each attempt 10 s: no failure for this long means that an attempt succeeded."""


@dataclass(slots=True)
class _Row:
    """Failures in a row."""

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    tried_again: bool = True
    """Whether LiveKit announced a retry."""


class Failures:
    """Reports the outages of speech recognition, or of a realtime model. Times are seconds of any monotonic clock.

    LiveKit retries by itself. A failure that the first retry resolves is not reported, unless the provider refused or
    LiveKit calls it unrecoverable; after that only a sign of life shows that a retry happened.
    """

    def __init__(self, outages: Outages) -> None:
        self._outages = outages
        self._rows: dict[Transcriber, _Row] = {"stt": _Row(), "realtime": _Row()}

    def failed(self, event: ErrorEvent, now: float) -> None:
        """Handle an error report of the session, from any of its components."""
        match event.error:
            case stt.STTError(error=error, recoverable=recoverable):
                words = f"speech recognition failed: {describe(error)}"
                self._failed("stt", kind_of(error), words, now, recoverable=recoverable)
            case llm.RealtimeModelError(error=error, recoverable=recoverable):
                reason = kind_of_failure(error)
                # A model also reports invalid requests; the connection stays open.
                if not recoverable or reason != "lost":
                    words = f"the realtime model failed: {describe_failure(error)}"
                    self._failed("realtime", reason, words, now, recoverable=recoverable)
            case _:
                pass

    def observed(self, observation: Observation, transcriber: Transcriber) -> None:
        """Handle a sign of life. ``transcriber`` is the component that gives the session its texts."""
        match observation:
            case SttStarted() | SttEnded():
                self._back("stt")
            case RealtimeStarted() | RealtimeEnded():
                self._back("realtime")
            case SttTranscript(detector=detector):
                self._back(detector)
            case Transcribed():
                self._back(transcriber)
            case _:
                pass

    def look(self, now: float) -> None:
        """Run the time-based checks."""
        for source, row in self._rows.items():
            if row.count and row.tried_again and now - row.last >= QUIET_S:
                self._back(source)

    def _failed(self, source: Transcriber, reason: SourceFailure, words: str, now: float, *, recoverable: bool) -> None:
        row = self._rows[source]
        row.first = row.first if row.count else now
        row.count, row.last, row.tried_again = row.count + 1, now, recoverable
        if row.count > 1 or reason == "refused" or not recoverable:
            self._outages.down(source, reason, words, since_ms=round((now - row.first) * 1000))

    def _back(self, source: Transcriber) -> None:
        self._rows[source].count = 0
        self._outages.up(source, missed_ms=None)
