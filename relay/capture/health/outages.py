"""Reports each outage of a stream's sources once, spaces the attempts to end it, and names its cause."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aiohttp import ClientError, ClientResponseError
from livekit.agents import APIConnectionError, APIError, APIStatusError

from relay.capture.audio.frames import to_ms
from relay.clock import Clock
from relay.events.stream import SourceFailure, SourceName
from relay.speech.observations import SourceDown, SourceUp

log = logging.getLogger(__name__)


class Backoff:
    """Counts failures in a row. ``waits_s`` are the waits after the first, the second, …; the last one repeats."""

    def __init__(self, waits_s: Sequence[float]) -> None:
        self._waits_s = waits_s
        self.failures = 0

    def wait_s(self) -> float:
        """Count a failure; returns the seconds to wait before the next attempt."""
        wait_s = self._waits_s[min(self.failures, len(self._waits_s) - 1)]
        self.failures += 1
        return wait_s

    def reset(self) -> None:
        """An attempt succeeded."""
        self.failures = 0


OnFault = Callable[[str], None]
"""Called once per outage, with a description for the operator."""

OnFailure = Callable[[SourceName, SourceFailure], None]
"""Called for each failure of a source that is retried, whether or not it is an outage."""

RECONNECT_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The waits before a provider is connected again."""

RESTART_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""The waits before a component of this process is started again."""


@dataclass(frozen=True, slots=True)
class _Outage:
    reason: SourceFailure
    failed_at: int
    failed_steady: int


class Outages:
    """Reports outages to ``report``, and their start to ``on_fault`` with a description for the operator."""

    def __init__(
        self,
        clock: Clock,
        report: Callable[[SourceDown | SourceUp], None],
        on_fault: OnFault,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._clock = clock
        self._report = report
        self._on_fault = on_fault
        self._on_failure = on_failure
        self._outages: dict[SourceName, _Outage] = {}

    def complain(self, words: str) -> None:
        """Report a fault that is not an outage."""
        self._on_fault(words)

    def failed(self, source: SourceName, reason: SourceFailure) -> None:
        """The source failed, and is retried."""
        if self._on_failure is not None:
            self._on_failure(source, reason)

    def down(self, source: SourceName, reason: SourceFailure, words: str, *, since_ms: int = 0) -> None:
        """The source failed ``since_ms`` ago. Reported unless it is down already."""
        if source in self._outages:
            return
        outage = _Outage(reason, self._clock.now_ms() - since_ms, self._clock.steady_ms() - since_ms)
        self._outages[source] = outage
        self._on_fault(words)
        self._report(SourceDown(source, reason, outage.failed_at))

    def is_down(self, source: SourceName) -> bool:
        """Whether it failed and has not recovered."""
        return source in self._outages

    def report_again(self) -> None:
        """Report all current outages again, to a reader that was not there when they started."""
        for source, outage in self._outages.items():
            self._report(SourceDown(source, outage.reason, outage.failed_at))

    def up(self, source: SourceName, missed_ms: int | None) -> None:
        """The source works. Reported if it was down."""
        outage = self._outages.pop(source, None)
        if outage is None:
            return
        gone_ms = self._clock.steady_ms() - outage.failed_steady
        log.info("the %s of a track is back after %.1f s", _NAMES[source], gone_ms / 1000)
        self._report(SourceUp(source, outage.reason, outage.failed_at, gone_ms, missed_ms))


_NAMES: dict[SourceName, str] = {
    "audio": "audio",
    "vad": "voice activity detection",
    "stt": "speech recognition",
    "session": "agent session",
    "realtime": "realtime model",
}


class RetriedSource:
    """Counts the failures of one source that is retried, and decides which are an outage.

    A failure that the first retry resolves is not reported, unless the provider refused or the caller is certain.
    Times are seconds of any monotonic clock.
    """

    def __init__(self, source: SourceName, outages: Outages) -> None:
        self._source = source
        self._outages = outages
        self._backoff = Backoff(RECONNECT_S)
        self._failed_at = 0.0
        self._missed: int | None = None
        self.wait_until = 0.0
        """When the next attempt may be made."""

    @property
    def failures(self) -> int:
        """The failures in a row."""
        return self._backoff.failures

    def failed(
        self, now: float, reason: SourceFailure, words: str, *, since_s: float = 0.0, certain: bool = False
    ) -> None:
        """An attempt failed ``since_s`` ago. ``words`` are for the operator; ``certain``: it is an outage already."""
        self._failed_at = self._failed_at if self.failures else now - since_s
        self.wait_until = now + self._backoff.wait_s()
        self._outages.failed(self._source, reason)
        if self.failures > 1 or reason == "refused" or certain:
            self.down(reason, words, since_s=now - self._failed_at)

    def down(self, reason: SourceFailure, words: str, *, since_s: float) -> None:
        """Report an outage, without counting a failure."""
        self._outages.down(self._source, reason, words, since_ms=round(since_s * 1000))

    def missed(self, samples: int) -> None:
        """The source was not given this much audio. Without such a call it is unknown how much it missed."""
        self._missed = (self._missed or 0) + samples

    def restart_waits(self) -> None:
        """An attempt succeeded. It does not show yet that the source works."""
        self._backoff.reset()

    def recovered(self) -> None:
        """The source works."""
        self._backoff.reset()
        self._outages.up(self._source, None if self._missed is None else to_ms(self._missed))
        self._missed = None


_HINTS = {
    401: " (wrong API key?)",
    403: " (not allowed for this API key)",
    402: " (no credit left?)",
    429: " (too many requests)",
    # Websocket close codes of providers that accept every connection and then report why they refuse.
    1008: " (wrong API key, or an account that may not?)",
    3009: " (too many sessions)",
}

_CODES: Mapping[str, str] = MappingProxyType(
    {
        "invalid_api_key": "wrong API key",
        "account_deactivated": "account deactivated",
        "insufficient_quota": "no credit left",
        "credit_balance_exhausted": "no credit left",
        "billing_hard_limit_reached": "no credit left",
        "rate_limit_exceeded": "too many requests",
        "session_expired": "session expired",
        "model_not_found": "no such model",
    }
)
"""OpenAI's codes. Any other code, and the message, is left out: both may quote the request."""

_INAUDIBLE = "audio_unintelligible"


def describe(error: Exception | None) -> str:
    """The kind of an error. Its message is left out: providers quote requests, keys and transcripts. None: it ended by
    itself, without a reason."""
    if error is None:
        return "it ended its stream"
    status = _status(error)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}{_HINTS.get(status, '')}"


def kind_of(error: Exception) -> SourceFailure:
    """Classify a provider's failure by the error that ended its stream."""
    status = _status(error)
    if status in _HINTS:
        return "refused"
    if status is not None and 500 <= status < 600:
        return "unreachable"
    if status is not None:
        return "lost"
    return (
        "unreachable"
        if isinstance(error, APIConnectionError | ClientError | OSError | asyncio.TimeoutError)
        else "lost"
    )


def _status(error: Exception) -> int | None:
    match error:
        case APIStatusError(status_code=status) | ClientResponseError(status=status):
            return status
        case _:
            return None


def describe_model_failure(error: Exception) -> str:
    """The kind of an error: its HTTP status or its code, where known."""
    if isinstance(error.__cause__, ClientResponseError):
        return describe(error.__cause__)
    if isinstance(error, APIError) and (known := _known(error.body)) is not None:
        return known
    return describe(error)


def kind_of_model_failure(error: Exception) -> SourceFailure:
    """Classify a model's failure by the error that ended its session."""
    if isinstance(error.__cause__, ClientResponseError):
        return kind_of(error.__cause__)
    if isinstance(error, APIError) and _known(error.body) is not None:
        return "refused"
    return kind_of(error)


def describe_failed_transcription(message: object) -> str | None:
    """Why a message of OpenAI's protocol reports a failed transcription; None where it does not, or where the speech
    was not intelligible."""
    match message:
        case {"type": "conversation.item.input_audio_transcription.failed", "error": error} if not _inaudible(error):
            return _known(error) or "for a reason of its own"
        case _:
            return None


def _inaudible(error: object) -> bool:
    return isinstance(error, dict) and error.get("code") == _INAUDIBLE


def _known(error: object) -> str | None:
    for name in ("code", "type"):
        value = error.get(name) if isinstance(error, dict) else getattr(error, name, None)
        if isinstance(value, str) and value in _CODES:
            return _CODES[value]
    return None
