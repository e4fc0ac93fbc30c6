"""Audio that speech recognition owes an answer for, to be said again to its next connection."""

from collections.abc import Iterator

from livekit import rtc

from relay.capture.audio.kept_audio import KeptAudio
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.drain_tracker import ANSWER_WITHIN_S
from relay.speech.observations import VadEnded, VadStarted

KEPT_S = 30.0
"""Seconds that are kept at most: about 1.5 MB for a track on which somebody speaks while nobody answers. Whoever waits
for a text for longer has gone on."""
_MOST = round(KEPT_S * SAMPLE_RATE)
_LEAD_IN = SAMPLE_RATE
"""Samples kept at any time: voice activity is sure of speech some time after it began."""
_TRAILING = SAMPLE_RATE // 2
"""Samples by which voice activity hears speech end later than its last word does."""


class OwedAudio:
    """The newest audio of a stream, as far back as speech goes that has no final text. Positions are in samples.

    ``voiced``: voice activity tells when somebody speaks, and silence need not be kept. ``unheard``: nobody listens at
    the moment, so that an answer that does not come means nothing.
    """

    def __init__(self, *, voiced: bool) -> None:
        self._voiced = voiced
        self._kept = KeptAudio()
        self._answered = 0
        self._owed: int | None = None if voiced else 0
        self._over: int | None = None
        self.unheard = False

    @property
    def begins(self) -> int:
        return self._kept.begins

    @property
    def ends(self) -> int:
        return self._kept.ends

    @property
    def any(self) -> bool:
        """Whether there is speech without an answer."""
        return self._owed is not None and self._owed < self.ends

    def __iter__(self) -> Iterator[rtc.AudioFrame]:
        return iter(self._kept)

    def heard(self, frame: rtc.AudioFrame) -> None:
        """One more frame."""
        self._kept.add(frame, _MOST)
        if self._over is not None and not self.unheard and self.ends - self._over > ANSWER_WITHIN_S * SAMPLE_RATE:
            self._owed = self._over = None
        recent = self.ends - _LEAD_IN
        self._kept.forget(max(self._answered, recent if self._owed is None else min(recent, self._owed)))

    def voice(self, edge: VadStarted | VadEnded) -> None:
        """Somebody speaks, or no more."""
        if not self._voiced:
            return
        if isinstance(edge, VadStarted):
            self._over = None
            if self._owed is None:
                self._owed = max(_samples(edge.onset_ms) - _LEAD_IN, self._answered)
        elif self._owed is not None:
            self._over = self.ends if edge.end_ms is None else _samples(edge.end_ms)
            self._settle()

    def answered(self, to_ms: int | None) -> None:
        """There is a final text for what comes before ``to_ms``; None: for all that came so far."""
        to = self.ends if to_ms is None else min(_samples(to_ms), self.ends)
        self._answered = max(self._answered, to)
        if self._owed is not None:
            self._owed = max(self._owed, self._answered)
        self._settle()

    def _settle(self) -> None:
        if self._over is not None and self._answered >= self._over - _TRAILING:
            self._owed = self._over = None


def _samples(ms: int) -> int:
    return round(ms * SAMPLE_RATE / 1000)
