"""Whether a realtime model still listens. Pure: it is told what came and what time it is, in seconds of any clock that
never goes back.

Two things can be known without voice activity detection. Whoever is asked something answers: a server of OpenAI's
protocol answers each ``session.update``, so one that is silent is asked now and then, and one that does not answer is
gone for certain. And a model that answers should hear speech in what sounds like it (see :class:`Doubt`).
"""

from typing import Literal

from livekit import rtc

from relay.capture.health.deafness_detector import Doubt, level_db
from relay.capture.health.watchdog import LOOK_EVERY_S, Stall

ASK_AFTER_S = 10.0
"""Of silence from the model. What was said since its last sign of life has to be kept meanwhile."""
ANSWER_WITHIN_S = 5.0
"""Servers answer within a fraction of a second."""

Suspicion = Literal["ask", "hung", "deaf"]
"""ask: it should be asked for a sign of life; hung: it did not answer; deaf: it should have heard something else."""


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
