"""Tracks the detectors' progress: how far they are behind the feed, and which results are outstanding."""

import asyncio

from relay.capture.audio.source import SAMPLE_RATE
from relay.speech.observations import (
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SttTranscript,
    Transcribed,
    VadEnded,
    VadStarted,
)

MOST_AHEAD = SAMPLE_RATE // 2
"""Samples that a feed faster than real time may be ahead: enough to keep the detectors busy, and few enough to keep
voice activity and transcripts in step."""


class Backpressure:
    """Bounds how far the feed is ahead: samples fed and processed, per detector. Without one nothing is ever behind."""

    def __init__(self, *detectors: str) -> None:
        self._heard = dict.fromkeys(detectors, 0)
        self._fed = 0
        self._moved = asyncio.Event()

    def fed(self, samples: int) -> None:
        """The feed has reached this sample."""
        self._fed = samples

    def heard(self, detector: str, samples: int) -> None:
        """This detector has reached this sample."""
        if samples > self._heard.get(detector, samples):
            self._heard[detector] = samples
            self._moved.set()

    def lost(self, detector: str) -> None:
        """This detector no longer reports its progress: do not wait for it."""
        self._heard.pop(detector, None)
        self._moved.set()

    async def within(self, samples: int = MOST_AHEAD) -> None:
        """Wait until the slowest detector is at most this far behind the feed."""
        while self._heard and self._fed - min(self._heard.values()) > samples:
            self._moved.clear()
            await self._moved.wait()


ANSWER_WITHIN_S = 5.0
"""Speech without a text by then gets none: noise, a cough."""


class DrainTracker:
    """Follows the observations of one stream: which ends of speech and which texts are outstanding.

    ``now_s`` is any monotonic clock, in seconds.

    ``answers_late``: nothing reports that no more text will come, so speech without text may still get one. For speech
    recognition its tap knows.
    """

    def __init__(self, *, answers_late: bool) -> None:
        self._answers_late = answers_late
        self._voice_open = False
        self._interim_open = False
        self._on_its_way = 0
        self._unanswered_since: float | None = None

    def see(self, observation: Observation, now_s: float) -> None:
        match observation:
            case VadStarted() | RealtimeStarted():
                self._voice_open = True
                self._unanswered_since = now_s if self._answers_late else None
            case VadEnded() | RealtimeEnded():
                self._voice_open = False
                if self._unanswered_since is not None:
                    self._unanswered_since = now_s
            case SttTranscript(final=True, text=text):
                self._interim_open = False
                self._unanswered_since = None
                # The session repeats the same text a little later.
                self._on_its_way += bool(text)
            case SttTranscript():
                self._interim_open = True
            case Transcribed(final=True):
                self._on_its_way = max(0, self._on_its_way - 1)
            case _:
                pass

    def any(self, now_s: float) -> bool:
        """Whether anything is outstanding."""
        answer_due = self._unanswered_since is not None and now_s < self._unanswered_since + ANSWER_WITHIN_S
        text_due = self._answers_late and (self._interim_open or answer_due)
        return self._voice_open or self._on_its_way > 0 or text_due
