"""Checks whether a realtime model still listens, and counts the sessions that failed.

Pure: it gets each event with the time, in seconds of any monotonic clock. Two checks work without voice activity
detection. A server of OpenAI's protocol answers each ``session.update``, so a silent one is probed now and then, and
one that does not answer is certainly gone. And a model that answers should report speech in audio that sounds like
speech (see :class:`DeafnessDetector`).
"""

from typing import Literal

from livekit import rtc

from relay.capture.health.outages import Outages, RetriedSource
from relay.capture.health.watchdog import LOOK_EVERY_S, DeafnessDetector, Stall, level_db
from relay.events.stream import SourceFailure

ASK_AFTER_S = 10.0
"""The model's silence before a probe. Speech since its last sign of life has to be buffered meanwhile."""
ANSWER_WITHIN_S = 5.0
"""Servers answer within a fraction of a second."""

Suspicion = Literal["ask", "hung", "deaf"]
"""ask: probe it; hung: it did not answer; deaf: it should have reported something else."""


class RealtimeWatch:
    """Watches the sessions of one stream's model, one after the other.

    A late call of ``suspects`` means that the process was blocked, and the model with it: that time does not count.
    """

    def __init__(self) -> None:
        self._doubt = DeafnessDetector()
        self._answer = Stall(ANSWER_WITHIN_S)
        self._answers = False
        self._signed_at = 0.0
        self._looked: float | None = None

    @property
    def doubts(self) -> bool:
        """Whether there is likely speech that the model has not reported yet."""
        return self._doubt.any

    def opened(self, now: float) -> None:
        """Start over for a new session, whose state is unknown."""
        self._answer.came()
        self._doubt.opened(now)
        self._answers, self._signed_at = False, now

    def asked(self, now: float) -> None:
        """A message was sent that every server answers."""
        self._answer.due(now)

    def answered(self) -> None:
        """The server answered the probe, so it can be probed again."""
        self._answers = True

    def refused(self) -> None:
        """The server answered with an error, so it is not probed again."""
        self._answers = False

    def sign_of_life(self, now: float) -> None:
        """The model sent anything."""
        self._answer.came()
        self._signed_at = now

    def said(self, now: float) -> None:
        """The model reported something about speech."""
        self._doubt.said(now)

    def heard(self, frame: rtc.AudioFrame, *, speaking: bool) -> None:
        """The model was given audio; ``speaking``: it reports that the participant is speaking."""
        self._doubt.heard(level_db(frame), frame.duration, speaking=speaking)

    def suspects(self, now: float) -> Suspicion | None:
        """The action that is due; call it with every frame. Repeated only after the same time again."""
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


class RealtimeAttempts(RetriedSource):
    """The failures of a model's sessions. One that had been silent is an outage. That a model misses speech is a guess,
    and reported when the next session misses it too."""

    def __init__(self, name: str, outages: Outages) -> None:
        super().__init__("realtime", outages)
        self._name = name
        self._deaf_since: float | None = None

    def ended(self, now: float, reason: SourceFailure, what: str, *, since_s: float = 0.0) -> None:
        """A session ended ``since_s`` seconds ago."""
        words = f"the realtime model {self._name} {what}; it is tried again until it answers"
        self.failed(now, reason, words, since_s=since_s, certain=reason == "stalled")

    def deaf(self, now: float) -> None:
        """A session that answers missed likely speech."""
        if self._deaf_since is None:
            self._deaf_since = now
        else:
            what = "hears nothing in what sounds like speech; it is tried again until it does"
            self.down("stalled", f"the realtime model {self._name} {what}", since_s=now - self._deaf_since)

    def steady(self) -> None:
        """The session is good."""
        if self._deaf_since is None:
            self.recovered()
        else:
            self.restart_waits()

    def hears(self) -> None:
        """The session has reported speech."""
        self._deaf_since = None
        self.recovered()
