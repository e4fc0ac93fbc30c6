"""Tracks which of a stream's sources are down. Reports each outage and its end once."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from relay.capture.health.faults import OnFault
from relay.clock import Clock
from relay.events.source import SourceFailure, SourceName
from relay.speech.observations import SourceDown, SourceUp

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Outage:
    reason: SourceFailure
    failed_at: int
    failed_steady: int


class Outages:
    """Reports outages to ``tell``, and their start to ``on_fault`` with a description for the operator."""

    def __init__(self, clock: Clock, tell: Callable[[SourceDown | SourceUp], None], on_fault: OnFault) -> None:
        self._clock = clock
        self._tell = tell
        self._on_fault = on_fault
        self._outages: dict[SourceName, _Outage] = {}

    def complain(self, words: str) -> None:
        """Report a fault that is not an outage."""
        self._on_fault(words)

    def down(self, source: SourceName, reason: SourceFailure, words: str, *, since_ms: int = 0) -> None:
        """The source failed ``since_ms`` ago. Reported unless it is down already."""
        if source in self._outages:
            return
        outage = _Outage(reason, self._clock.now_ms() - since_ms, self._clock.steady_ms() - since_ms)
        self._outages[source] = outage
        self._on_fault(words)
        self._tell(SourceDown(source, reason, outage.failed_at))

    def is_down(self, source: SourceName) -> bool:
        """Whether it failed and has not recovered."""
        return source in self._outages

    def tell_again(self) -> None:
        """Report all current outages again, to a reader that was not there when they started."""
        for source, outage in self._outages.items():
            self._tell(SourceDown(source, outage.reason, outage.failed_at))

    def up(self, source: SourceName, missed_ms: int | None) -> None:
        """The source works. Reported if it was down."""
        outage = self._outages.pop(source, None)
        if outage is None:
            return
        gone_ms = self._clock.steady_ms() - outage.failed_steady
        log.info("the %s of a track is back after %.1f s", _NAMES[source], gone_ms / 1000)
        self._tell(SourceUp(source, outage.reason, outage.failed_at, gone_ms, missed_ms))


_NAMES: dict[SourceName, str] = {
    "audio": "audio",
    "vad": "voice activity detection",
    "stt": "speech recognition",
    "session": "agent session",
    "realtime": "realtime model",
}
