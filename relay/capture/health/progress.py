"""Tracks what a stream's detectors and session still owe: ends of speech, and texts."""

from relay.speech.observations import (
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SttTranscript,
    Transcribed,
    VadEnded,
    VadStarted,
)

ANSWER_WITHIN_S = 5.0
"""Speech without a text by then gets none: noise, a cough."""


class DrainTracker:
    """Follows the observations of one stream. ``now_s`` is any monotonic clock, in seconds.

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
        """Whether anything is still owed."""
        answer_due = self._unanswered_since is not None and now_s < self._unanswered_since + ANSWER_WITHIN_S
        text_due = self._answers_late and (self._interim_open or answer_due)
        return self._voice_open or self._on_its_way > 0 or text_due
