"""Detects components that stop without an error, and models that report no speech where there is some.

Pure: it gets each event with the time, in seconds of any monotonic clock.
"""

import math
from typing import Literal

from livekit import rtc

from relay.speech.observations import Observation, SttEnded, SttStarted, SttTranscript, VadEnded, VadStarted

LOOK_EVERY_S = 1.0
"""The polling interval."""
AUDIO_WITHIN_S = 5.0
"""LiveKit delivers a frame every 20 ms, also for a silent participant or after packet loss; a successful WebRTC
reconnection takes less than this."""
TAKEN_WITHIN_S = 5.0
"""A session takes a frame as soon as it is available. It is this slow only when it has stopped."""
INFERENCE_WITHIN_S = 5.0
"""Voice activity detection answers about thirty times a second; an overloaded machine that takes seconds still answers
now and then."""
WORDLESS_S = 10.0
"""Speech without a sign of life from speech recognition. Interims come within a second, finals within a few."""
LONGEST_WORDLESS_S = 60.0
"""Where nothing is ever recognized (music, another language), the number of reconnections is limited."""
COUNTED_FROM_S = 1.0
"""Anything shorter is as likely a cough, and often has no text."""
_LEAK = 0.1
"""Seconds of shorter speech that a second of silence offsets: coughs do not add up, single words do."""

Alarm = Literal["audio", "session", "vad", "stt"]


class Stall:
    """Something is due, and must come within ``limit_s``."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since: float | None = None

    def due(self, now: float) -> None:
        """It is due from now on, unless it already was."""
        if self._since is None:
            self._since = now

    def came(self) -> None:
        """It is no longer due."""
        self._since = None

    def forgive(self, seconds: float) -> None:
        """Exclude a time in which nothing could have come."""
        if self._since is not None:
            self._since += seconds

    def waited_s(self, now: float) -> float:
        """How long it has been due; 0 where it is not."""
        return 0.0 if self._since is None else now - self._since

    def overdue_s(self, now: float) -> float | None:
        """How long it has been due, once that exceeds the limit."""
        return None if self._since is None or now - self._since < self._limit_s else now - self._since


class Wordless:
    """Counts speech since speech recognition's last sign of life. Media times in ms.

    After each alarm the limit doubles, until there is a sign of life.
    """

    def __init__(self) -> None:
        self._limit_s = WORDLESS_S
        self._counted_s = 0.0
        self._short_s = 0.0
        self._short_until_ms = 0
        self._from_ms: int | None = None

    def voice_started(self, onset_ms: int) -> None:
        self._from_ms = onset_ms

    def voice_ended(self, end_ms: int | None, heard_ms: int) -> None:
        end_ms = heard_ms if end_ms is None else end_ms
        open_s = self._open_s(end_ms)
        if open_s >= COUNTED_FROM_S:
            self._counted_s += open_s
        elif self._from_ms is not None:
            silence_s = (self._from_ms - self._short_until_ms) / 1000
            self._short_s = max(0.0, self._short_s - _LEAK * silence_s) + open_s
            self._short_until_ms = end_ms
        self._from_ms = None

    def sign_of_life(self, heard_ms: int) -> None:
        self._limit_s, self._counted_s, self._short_s = WORDLESS_S, 0.0, 0.0
        if self._from_ms is not None:
            self._from_ms = max(self._from_ms, heard_ms)

    def alarm(self, heard_ms: int) -> bool:
        """Whether the limit is exceeded; if so, the count restarts."""
        open_s = self._open_s(heard_ms)
        speech_s = self._counted_s + self._short_s + (open_s if open_s >= COUNTED_FROM_S else 0.0)
        if speech_s < self._limit_s:
            return False
        self._limit_s = min(2 * self._limit_s, LONGEST_WORDLESS_S)
        self._counted_s, self._short_s = 0.0, 0.0
        if self._from_ms is not None:
            self._from_ms = heard_ms
        return True

    def _open_s(self, until_ms: int) -> float:
        return 0.0 if self._from_ms is None else (until_ms - self._from_ms) / 1000


class Watchdog:
    """Watches one stream. ``live``: its audio comes at the pace of speech, so it can be late.

    A late call of ``alarms`` means that the process was blocked, and the watched components with it: that time does not
    count.
    """

    def __init__(self, *, live: bool, muted: bool, transcribed: bool) -> None:
        self._live = live
        self._muted = muted
        self._transcribed = transcribed
        self._audio = Stall(AUDIO_WITHIN_S)
        self._taken = Stall(TAKEN_WITHIN_S)
        self._inference = Stall(INFERENCE_WITHIN_S)
        self._wordless = Wordless()
        self._silent_since: float | None = None
        self._looked: float | None = None

    def begins(self, now: float) -> None:
        """Audio is due from now on."""
        self._looked = now
        self._await_audio(now)

    def asked(self) -> None:
        """The session asks for a frame."""
        self._taken.came()

    def frame(self, now: float) -> float | None:
        """A frame came. Returns how many seconds none had, if an alarm was raised for that."""
        self._audio.came()
        self._await_audio(now)
        self._taken.due(now)
        gap_s = None if self._silent_since is None else now - self._silent_since
        self._silent_since = None
        return gap_s

    def withheld(self, now: float) -> float:
        """Audio is known to be unavailable. Returns how many seconds none has come."""
        missed_s = self._audio.waited_s(now)
        if self._silent_since is None:
            self._silent_since = now - missed_s
        self._audio.came()
        return missed_s

    def over(self) -> None:
        """The source has ended."""
        self._live = False
        self._audio.came()
        self.unattended()

    def unattended(self) -> None:
        """No session is there to take audio, which is known."""
        self._taken.came()
        self._inference.came()

    def mute(self, muted: bool, now: float) -> None:
        """A muted track need not send anything."""
        self._muted = muted
        self._audio.came()
        self._await_audio(now)

    def voice_fed(self, now: float) -> None:
        """Voice activity detection was given audio."""
        self._inference.due(now)

    def voice_inferred(self) -> None:
        """Voice activity detection answered."""
        self._inference.came()

    def observed(self, observation: Observation, heard_ms: int) -> None:
        """Take a detector's report; ``heard_ms`` is the audio received so far."""
        match observation:
            case VadStarted(onset_ms):
                self._wordless.voice_started(onset_ms)
            case VadEnded(end_ms):
                self._wordless.voice_ended(end_ms, heard_ms)
            case SttStarted() | SttEnded() | SttTranscript():
                self._wordless.sign_of_life(heard_ms)
            case _:
                pass

    def alarms(self, now: float, heard_ms: int) -> list[tuple[Alarm, float]]:
        """What has stopped, and for how many seconds. Repeated only after the same time again."""
        late_s = 0.0 if self._looked is None else now - self._looked - LOOK_EVERY_S
        self._looked = now
        if late_s > LOOK_EVERY_S:
            for stall in (self._audio, self._taken, self._inference):
                stall.forgive(late_s)
        alarms: list[tuple[Alarm, float]] = []
        if (overdue_s := self._audio.overdue_s(now)) is not None:
            self._audio.came()
            if self._silent_since is None:
                self._silent_since = now - overdue_s
            alarms.append(("audio", overdue_s))
        if (overdue_s := self._taken.overdue_s(now)) is not None:
            self._taken.came()
            alarms.append(("session", overdue_s))
        if (overdue_s := self._inference.overdue_s(now)) is not None:
            self._inference.came()
            alarms.append(("vad", overdue_s))
        if self._transcribed and self._wordless.alarm(heard_ms):
            alarms.append(("stt", 0.0))
        return alarms

    def _await_audio(self, now: float) -> None:
        if self._live and not self._muted:
            self._audio.due(now)


_LOUD_DB = 10.0
"""How far speech lies above the background level."""
_FAINT_DB = -50.0
"""Relative to full scale; anything quieter is not speech."""
_RISE_DB_PER_S = 5.0
"""A hum or a fan becomes part of the background after some seconds; speech drops to the background in between."""
_LOUD_LEAK = 0.25
"""Seconds of loud audio that a second of quiet offsets: clicks and coughs do not add up, sentences do."""
_SAMPLE_EVERY = 4
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

    Without voice activity detection it is unknown when a participant speaks. But audio that rises and falls like speech
    should be reported as speech. That is a guess, because music does so as well.

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
            self._seconds = 0.0 if speaking else max(0.0, self._seconds - _LOUD_LEAK * seconds)

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
    samples = frame.data[::_SAMPLE_EVERY]
    power = sum(sample * sample for sample in samples) / max(1, len(samples))
    return max(-100.0, 10 * math.log10(power / 32768**2)) if power else -100.0
