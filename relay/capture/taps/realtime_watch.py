"""Whether a realtime model still listens. Pure: it is told what came and what time it is, in seconds of any clock that
never goes back.

Two things can be known without voice activity detection. Whoever is asked something answers: a server of OpenAI's
protocol answers each ``session.update``, so one that is silent is asked now and then, and one that does not answer is
gone for certain. And audio that rises and falls as speech does should be heard as speech by a model that answers, too:
that is a guess, because music does so as well.
"""

import math
from typing import Literal

from livekit import rtc

from relay.capture.watchdog import LONGEST_WORDLESS_S, LOOK_EVERY_S, WORDLESS_S, Stall

ASK_AFTER_S = 10.0
"""Of silence from the model. What was said since its last sign of life has to be kept meanwhile."""
ANSWER_WITHIN_S = 5.0
"""Servers answer within a fraction of a second."""

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

Suspicion = Literal["ask", "hung", "deaf"]
"""ask: it should be asked for a sign of life; hung: it did not answer; deaf: it should have heard something else."""


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
    """

    def __init__(self) -> None:
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
        if loud is not speaking:
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


class RealtimeWatch:
    """Watches the sessions of one stream's model, one after the other.

    Whoever is asked too late for ``suspects`` was held up, and the model with it: that time does not count.
    """

    def __init__(self) -> None:
        self._doubt = Doubt()
        self._answer = Stall(ANSWER_WITHIN_S)
        self._answers = False
        self._signed_at = 0.0
        self._looked: float | None = None

    @property
    def doubts(self) -> bool:
        """Something was heard of which the model has said nothing yet, as far as one can tell."""
        return self._doubt.any

    def opened(self, now: float) -> None:
        """A new session, of which nothing is known."""
        self._answer.came()
        self._doubt.opened(now)
        self._answers, self._signed_at = False, now

    def asked(self, now: float) -> None:
        """Something was sent that every server answers."""
        self._answer.due(now)

    def answered(self) -> None:
        """It was answered: a server that does so may be asked again."""
        self._answers = True

    def refused(self) -> None:
        """It answered with an error, so it is not asked again."""
        self._answers = False

    def sign_of_life(self, now: float) -> None:
        """The model sent anything."""
        self._answer.came()
        self._signed_at = now

    def said(self, now: float) -> None:
        """The model said something about speech."""
        self._doubt.said(now)

    def heard(self, frame: rtc.AudioFrame, *, speaking: bool) -> None:
        """The model was given audio; ``speaking``: it says that somebody is."""
        self._doubt.heard(level_db(frame), frame.duration, speaking=speaking)

    def suspects(self, now: float) -> Suspicion | None:
        """What should be done about it; to be asked with every frame. It is said again only after as long again."""
        late_s = 0.0 if self._looked is None else now - self._looked - LOOK_EVERY_S
        self._looked = now
        if late_s > LOOK_EVERY_S:
            self._answer.forgive(late_s)
            self._signed_at += late_s
        if self._answer.overdue_s(now) is not None:
            self._answer.came()
            return "hung"
        if self._doubt.alarm(now):
            return "deaf"
        if self._answers and now - self._signed_at >= ASK_AFTER_S:
            self._signed_at = now
            return "ask"
        return None


def level_db(frame: rtc.AudioFrame) -> float:
    """The frame's level relative to full scale; silence is -100 dB."""
    samples = frame.data[::_EVERY]
    power = sum(sample * sample for sample in samples) / max(1, len(samples))
    return max(-100.0, 10 * math.log10(power / 32768**2)) if power else -100.0
