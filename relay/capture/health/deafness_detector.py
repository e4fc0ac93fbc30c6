"""Compares the audio's level with what a model reports. Pure.

Times are seconds of any monotonic clock. Without voice activity detection it is unknown when a participant speaks. But
audio that rises and falls like speech should be reported as speech. That is a guess, because music does so as well.
"""

import math

from livekit import rtc

from relay.capture.health.watchdog import LONGEST_WORDLESS_S, WORDLESS_S

_LOUD_DB = 10.0
"""How far speech lies above the background level."""
_FAINT_DB = -50.0
"""Relative to full scale; anything quieter is not speech."""
_RISE_DB_PER_S = 5.0
"""A hum or a fan becomes part of the background after some seconds; speech drops to the background in between."""
_LEAK = 0.25
"""Seconds of loud audio that a second of quiet offsets: clicks and coughs do not add up, sentences do."""
_EVERY = 4
"""One sample in this many is enough to measure the level."""


class Loudness:
    """Whether audio stands out from the background, as speech does."""

    def __init__(self) -> None:
        self._floor_db: float | None = None

    def loud(self, level_db: float, seconds: float) -> bool:
        """Take a stretch of audio's level relative to full scale; call it for each stretch in turn."""
        floor_db = level_db if self._floor_db is None else self._floor_db
        self._floor_db = min(level_db, floor_db + _RISE_DB_PER_S * seconds)
        return level_db > max(floor_db + _LOUD_DB, _FAINT_DB)


class DeafnessDetector:
    """Counts seconds of audio that contradict the model: loud without reported speech, quiet without a reported end.
    After each alarm the limit doubles, until the model reports something.

    ``talks_along``: the model should report continuously during speech, not only at its start and end.
    """

    def __init__(self, *, talks_along: bool = False) -> None:
        self._talks_along = talks_along
        self._limit_s = WORDLESS_S
        self._seconds = 0.0
        self._since = 0.0
        self._loudness = Loudness()

    @property
    def any(self) -> bool:
        return self._seconds > 0

    def heard(self, level_db: float, seconds: float, *, speaking: bool) -> None:
        """Take a stretch of audio; ``speaking``: the model reports that the participant is speaking."""
        loud = self._loudness.loud(level_db, seconds)
        if loud is not speaking or (loud and self._talks_along):
            self._seconds += seconds
        else:
            self._seconds = 0.0 if speaking else max(0.0, self._seconds - _LEAK * seconds)

    def opened(self, now: float) -> None:
        """Start over for another session, whose state is unknown."""
        self._seconds, self._since = 0.0, now

    def said(self, now: float) -> None:
        """The model has reported something about speech."""
        self._limit_s, self._seconds, self._since = WORDLESS_S, 0.0, now

    def alarm(self, now: float) -> bool:
        """Whether the limit is exceeded, for a model that cannot process audio faster than real time."""
        if min(self._seconds, now - self._since) < self._limit_s:
            return False
        self._limit_s, self._seconds, self._since = min(2 * self._limit_s, LONGEST_WORDLESS_S), 0.0, now
        return True


def level_db(frame: rtc.AudioFrame) -> float:
    """The frame's level relative to full scale; silence is -100 dB."""
    samples = frame.data[::_EVERY]
    power = sum(sample * sample for sample in samples) / max(1, len(samples))
    return max(-100.0, 10 * math.log10(power / 32768**2)) if power else -100.0
