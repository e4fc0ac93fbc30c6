"""What audio sounds like, against what somebody hears in it. Pure: times are in seconds of any clock that never goes
back.

Without voice activity detection nobody knows when somebody speaks. But audio that rises and falls as speech does should
be heard as speech: that is a guess, because music does so as well.
"""

import math

from livekit import rtc

from relay.capture.health.watchdog import LONGEST_WORDLESS_S, WORDLESS_S

_LOUD_DB = 10.0
"""How far speech lies above what is always there."""
_FAINT_DB = -50.0
"""Relative to full scale; what is fainter is no speech to anybody."""
_RISE_DB_PER_S = 5.0
"""A hum or a fan is taken for what is always there after some seconds; speech comes back to the ground in between."""
_LEAK = 0.25
"""Seconds of loud audio that a second of quiet makes up for: clicks and coughs do not add up, sentences do."""
_EVERY = 4
"""One sample in so many is enough to tell how loud it is."""


class Loudness:
    """Whether audio stands out from what is always there, as speech does."""

    def __init__(self) -> None:
        self._floor_db: float | None = None

    def loud(self, level_db: float, seconds: float) -> bool:
        """For each stretch of audio in turn, its level relative to full scale."""
        floor_db = level_db if self._floor_db is None else self._floor_db
        self._floor_db = min(level_db, floor_db + _RISE_DB_PER_S * seconds)
        return level_db > max(floor_db + _LOUD_DB, _FAINT_DB)


class Doubt:
    """Seconds of audio that the model should have heard otherwise: loud where it hears no speech, quiet where it has
    heard no end of it. After each alarm it takes twice as much until the next one, until the model says something.

    ``talks_along``: it should say something all the while that somebody speaks, and not at the start and the end alone.
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
        """A stretch of audio; ``speaking``: the model says that somebody is."""
        loud = self._loudness.loud(level_db, seconds)
        if loud is not speaking or (loud and self._talks_along):
            self._seconds += seconds
        else:
            self._seconds = 0.0 if speaking else max(0.0, self._seconds - _LEAK * seconds)

    def opened(self, now: float) -> None:
        """Another session, of which nothing is known."""
        self._seconds, self._since = 0.0, now

    def said(self, now: float) -> None:
        """The model has said something about speech."""
        self._limit_s, self._seconds, self._since = WORDLESS_S, 0.0, now

    def alarm(self, now: float) -> bool:
        """Whether it is too much by now, for a model that cannot hear faster than speech is spoken."""
        if min(self._seconds, now - self._since) < self._limit_s:
            return False
        self._limit_s, self._seconds, self._since = min(2 * self._limit_s, LONGEST_WORDLESS_S), 0.0, now
        return True


def level_db(frame: rtc.AudioFrame) -> float:
    """The frame's level relative to full scale; silence is -100 dB."""
    samples = frame.data[::_EVERY]
    power = sum(sample * sample for sample in samples) / max(1, len(samples))
    return max(-100.0, 10 * math.log10(power / 32768**2)) if power else -100.0
