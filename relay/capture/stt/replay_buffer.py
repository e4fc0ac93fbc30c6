"""Buffers audio without a final text, to replay it on the next connection."""

from collections.abc import Iterator

from livekit import rtc

from relay.capture.audio.frames import KeptAudio
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.progress import ANSWER_WITHIN_S
from relay.speech.observations import VadEnded, VadStarted

KEPT_S = 30.0
"""Seconds that are kept at most: about 1.5 MB for a track with speech while no provider answers. A text that is later
than this is no longer useful."""
_MOST = round(KEPT_S * SAMPLE_RATE)
_LEAD_IN = SAMPLE_RATE
"""Samples kept at any time: voice activity reports speech some time after its onset."""
_TRAILING = SAMPLE_RATE // 2
"""Samples by which voice activity reports the end of speech later than its last word."""


class ReplayBuffer:
    """The newest audio of a stream, as far back as speech goes that has no final text. Positions are in samples.

    ``voiced``: voice activity reports speech, so silence need not be kept. ``unheard``: no connection listens at the
    moment, so a missing answer means nothing.
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
        """Add a frame."""
        self._kept.add(frame, _MOST)
        if self._over is not None and not self.unheard and self.ends - self._over > ANSWER_WITHIN_S * SAMPLE_RATE:
            self._owed = self._over = None
        recent = self.ends - _LEAD_IN
        self._kept.forget(max(self._answered, recent if self._owed is None else min(recent, self._owed)))

    def voice(self, edge: VadStarted | VadEnded) -> None:
        """Speech started or ended."""
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
        """There is a final text for the audio before ``to_ms``; None: for all audio so far."""
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
