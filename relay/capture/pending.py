"""What a stream still owes: speech without its end, speech without its text."""

from relay.speech.observations import (
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    VadEnded,
    VadStarted,
)

ANSWER_WITHIN_S = 5.0
"""Speech that has no text by then gets none: noise, a cough."""


class Pending:
    """Follows the observations of one stream. ``now_s`` is any clock that never goes back, in seconds.

    ``answers_late``: speech recognition does not say how far it has come, so that speech without a text may still get
    one.
    """

    def __init__(self, *, answers_late: bool) -> None:
        self._answers_late = answers_late
        self._voice_open = False
        self._stt_open = False
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
            case SttStarted():
                self._stt_open = True
            case SttEnded():
                self._stt_open = False
            case SttTranscript(final=True, text=text):
                self._interim_open = False
                self._unanswered_since = None
                # The session reports the same text once more, a little later.
                self._on_its_way += bool(text)
            case SttTranscript():
                self._interim_open = True
            case Transcribed(final=True):
                self._on_its_way = max(0, self._on_its_way - 1)
            case _:
                pass

    def any(self, now_s: float) -> bool:
        """Whether something is still to come."""
        answer_due = self._unanswered_since is not None and now_s < self._unanswered_since + ANSWER_WITHIN_S
        return self._voice_open or self._stt_open or self._interim_open or self._on_its_way > 0 or answer_due
