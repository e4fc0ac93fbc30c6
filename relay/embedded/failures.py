"""Turns a session's reports of detector failures into outages, and decides when they end."""

from typing import Literal

from livekit.agents import ErrorEvent, llm, stt

from relay.capture.health.outages import (
    Outages,
    RetriedSource,
    describe,
    describe_model_failure,
    kind_of,
    kind_of_model_failure,
)
from relay.events.stream import SourceFailure
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


class _Source(RetriedSource):
    last = 0.0
    """When it last failed."""
    retried = True
    """Whether LiveKit announced a retry."""


class Failures:
    """Reports the outages of speech recognition, or of a realtime model. Times are seconds of any monotonic clock.

    LiveKit retries by itself. A failure that the first retry resolves is not reported, unless the provider refused or
    LiveKit calls it unrecoverable; after that only a sign of life shows that a retry happened.
    """

    def __init__(self, outages: Outages) -> None:
        self._sources: dict[Transcriber, _Source] = {
            "stt": _Source("stt", outages),
            "realtime": _Source("realtime", outages),
        }

    def failed(self, event: ErrorEvent, now: float) -> None:
        """Handle an error report of the session, from any of its components."""
        match event.error:
            case stt.STTError(error=error, recoverable=recoverable):
                words = f"speech recognition failed: {describe(error)}"
                self._failed("stt", kind_of(error), words, now, recoverable=recoverable)
            case llm.RealtimeModelError(error=error, recoverable=recoverable):
                reason = kind_of_model_failure(error)
                # A model also reports invalid requests; the connection stays open.
                if not recoverable or reason != "lost":
                    words = f"the realtime model failed: {describe_model_failure(error)}"
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
        for source in self._sources.values():
            if source.failures and source.retried and now - source.last >= QUIET_S:
                source.recovered()

    def _failed(self, source: Transcriber, reason: SourceFailure, words: str, now: float, *, recoverable: bool) -> None:
        failed = self._sources[source]
        failed.last, failed.retried = now, recoverable
        failed.failed(now, reason, words, certain=not recoverable)

    def _back(self, source: Transcriber) -> None:
        self._sources[source].recovered()
