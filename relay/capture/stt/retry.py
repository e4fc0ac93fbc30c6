"""Tracks the failures of speech recognition's connections, and decides which are outages."""

from livekit.agents import APIStatusError
from livekit.agents.stt import STTError

from relay.capture.audio.frame_metadata import to_ms
from relay.capture.health.faults import describe, kind_of
from relay.capture.health.outages import Outages
from relay.events.source import SourceFailure

_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The delay before the provider is retried, after its first failure in a row, its second, …; the last one repeats."""


class SttAttempts:
    """Counts failures in a row. Times are seconds of any monotonic clock.

    A failure that the first retry resolves is not reported as an outage, unless the provider refused, or fell silent
    after it had transcribed something.
    """

    def __init__(self, name: str, outages: Outages) -> None:
        self._name = name
        self._outages = outages
        self._failed_at = 0.0
        self._refusal: Exception | None = None
        self._missed = 0
        self._spoke = False
        self.failures = 0
        self.wait_until = 0.0
        """When the next connection may be made."""
        self.silent = False
        """Whether it was silent during speech, and no text has come since."""

    def answered(self, event: STTError) -> None:
        """The provider's answer: the error that the stream ends with does not always contain it."""
        if isinstance(event.error, APIStatusError):
            self._refusal = event.error

    def failed(self, now: float, error: Exception | None, reason: SourceFailure | None) -> None:
        """A connection ended: by an error, by itself (neither is given), or for this reason."""
        self._failed_at = self._failed_at if self.failures else now
        self.wait_until = now + _WAITS_S[min(self.failures, len(_WAITS_S) - 1)]
        self.failures += 1
        self.silent = self.silent or reason == "stalled"
        self._tell(self._refusal or error, reason, since_s=now - self._failed_at)
        self._refusal = None

    def missed(self, samples: int) -> None:
        """This much audio was sent to no connection."""
        self._missed += samples

    def spoke(self) -> None:
        """Text came."""
        self._spoke, self.silent = True, False
        self.good()

    def good(self) -> None:
        """The connection is good."""
        self.failures = 0
        self._outages.up("stt", to_ms(self._missed))
        self._missed = 0

    def _tell(self, error: Exception | None, reason: SourceFailure | None, *, since_s: float) -> None:
        reason = reason or ("lost" if error is None else kind_of(error))
        if self.failures > 1 or reason == "refused" or (reason == "stalled" and self._spoke):
            what = "says nothing any more" if reason == "stalled" else f"failed: {describe(error)}"
            self._outages.down(
                "stt",
                reason,
                f"speech recognition by {self._name} {what}; it is tried again until it answers",
                since_ms=round(since_s * 1000),
            )
