"""When a session's detectors count as failed, and when as back."""

from livekit.agents import (
    APIConnectionError,
    APIError,
    ErrorEvent,
    llm,
    stt,
)

from relay.capture.health.outages import Outages
from relay.clock import SystemClock
from relay.embedded import vad as embedded_vad
from relay.embedded.failures import QUIET_S, Failures
from relay.speech.observations import RealtimeStarted, SourceDown, SourceUp, SttTranscript, Transcribed

UNREACHABLE = APIConnectionError("a transcript")


def test_a_detector_is_not_blamed_for_what_nobody_gave_it() -> None:
    pulse = embedded_vad._Pulse()
    assert not pulse.missed(0.0)
    pulse.felt()
    assert not pulse.missed(0.0)
    assert not pulse.missed(60.0), "a minute in which the session gave it nothing"
    assert not pulse.missed(60.9)
    pulse.felt()
    times = [61.0 + tenth / 10 for tenth in range(52)]
    assert [pulse.missed(at) for at in times] == [False] * 50 + [True] * 2


def test_a_detector_that_never_answers_audio_by_audio_owes_nothing() -> None:
    pulse = embedded_vad._Pulse()
    assert not any(pulse.missed(at / 10) for at in range(1000))


class Ledger:
    """Failures at given times, and what is told of them."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.failures = Failures(Outages(SystemClock(), self._tell, lambda words: None))

    def _tell(self, observation: SourceDown | SourceUp) -> None:
        self.told.append(("down" if isinstance(observation, SourceDown) else "up", observation.detector))

    def speech(self, error: Exception, at: float, *, recoverable: bool = True) -> None:
        said = stt.STTError(timestamp=0.0, label="", error=error, recoverable=recoverable)
        self.failures.failed(ErrorEvent(error=said, source=None), at)

    def model(self, error: Exception, at: float, *, recoverable: bool = True) -> None:
        said = llm.RealtimeModelError(timestamp=0.0, label="", error=error, recoverable=recoverable)
        self.failures.failed(ErrorEvent(error=said, source=None), at)


def test_an_attempt_that_stands_is_the_end_of_an_outage() -> None:
    ledger = Ledger()
    ledger.speech(UNREACHABLE, 0.0)
    ledger.failures.look(14.0)
    assert not ledger.told
    ledger.speech(UNREACHABLE, 14.0)
    ledger.failures.look(14.0 + QUIET_S - 0.1)
    assert ledger.told == [("down", "stt")]
    ledger.failures.look(14.0 + QUIET_S)
    assert ledger.told == [("down", "stt"), ("up", "stt")]
    ledger.speech(UNREACHABLE, 60.0)
    ledger.failures.look(60.0 + QUIET_S)
    ledger.speech(UNREACHABLE, 90.0)
    assert len(ledger.told) == 2, "these are not in a row"


def test_nobody_tries_again_after_what_is_unrecoverable_so_silence_is_no_return() -> None:
    ledger = Ledger()
    ledger.speech(UNREACHABLE, 0.0, recoverable=False)
    ledger.failures.look(10 * QUIET_S)
    assert ledger.told == [("down", "stt")]
    ledger.failures.observed(Transcribed("yes", True), "stt")
    assert ledger.told == [("down", "stt"), ("up", "stt")]


def test_a_realtime_models_word_about_a_request_is_no_outage() -> None:
    ledger = Ledger()
    for at in range(5):
        ledger.model(APIError("a transcript", body={"code": "response_cancel_not_active"}, retryable=True), at)
    assert not ledger.told
    ledger.model(APIError("a transcript", body={"code": "insufficient_quota"}, retryable=True), 6.0)
    assert ledger.told == [("down", "realtime")]
    ledger.failures.observed(RealtimeStarted(0), "realtime")
    assert ledger.told == [("down", "realtime"), ("up", "realtime")]


def test_words_of_speech_recognition_are_no_sign_of_life_of_a_model_beside_it() -> None:
    ledger = Ledger()
    ledger.model(UNREACHABLE, 0.0, recoverable=False)
    ledger.failures.observed(SttTranscript("yes", True), "stt")
    ledger.failures.observed(Transcribed("yes", True), "stt")
    assert ledger.told == [("down", "realtime")]
    ledger.failures.observed(SttTranscript("yes", True, detector="realtime"), "stt")
    assert ledger.told == [("down", "realtime"), ("up", "realtime")]
