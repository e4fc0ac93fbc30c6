"""Turns probabilities into speech by the Silero plugin's own rules. Pure."""

from livekit.agents import utils, vad

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.vad.silero.network import WINDOW
from relay.capture.vad.silero.plugin import Thresholds

_SMOOTHING = 0.35
"""The weight of the previous value in a smoothed probability: the plugin's figure."""


class Hysteresis:
    """Processes one voice's windows in order, and emits the plugin's events without their audio."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._smoothed = utils.ExpFilter(alpha=_SMOOTHING)
        self._windows = 0
        self._speaking = False
        self._speech = self._silence = 0
        """Windows since speech, or silence, was reported."""
        self._loud = self._quiet = 0
        """Windows in a row that are speech, or silence."""

    def heard(self, probability: float) -> list[vad.VADEvent]:
        """The events of the next window: always the inference; then a start or an end, if it is one."""
        probability = self._smoothed.apply(exp=1.0, sample=probability)
        self._windows += 1
        if self._speaking:
            self._speech += 1
        else:
            self._silence += 1
        inferred = self._event(vad.VADEventType.INFERENCE_DONE, self._speech, self._silence)
        inferred.probability = probability
        inferred.raw_accumulated_speech = _seconds(self._loud)
        inferred.raw_accumulated_silence = _seconds(self._quiet)
        loud = probability >= self._thresholds.activation or (
            self._speaking and probability > self._thresholds.deactivation
        )
        edge = self._rises() if loud else self._falls()
        return [inferred] if edge is None else [inferred, edge]

    def _rises(self) -> vad.VADEvent | None:
        self._loud, self._quiet = self._loud + 1, 0
        if self._speaking or _seconds(self._loud) < self._thresholds.min_speech_s:
            return None
        self._speaking, self._speech, self._silence = True, self._loud, 0
        return self._event(vad.VADEventType.START_OF_SPEECH, self._speech, 0)

    def _falls(self) -> vad.VADEvent | None:
        self._loud, self._quiet = 0, self._quiet + 1
        if not self._speaking or _seconds(self._quiet) < self._thresholds.min_silence_s:
            return None
        ended = self._event(vad.VADEventType.END_OF_SPEECH, max(0, self._speech - self._quiet), self._quiet)
        self._speaking, self._speech, self._silence = False, 0, self._quiet
        return ended

    def _event(self, kind: vad.VADEventType, speech: int, silence: int) -> vad.VADEvent:
        return vad.VADEvent(
            type=kind,
            samples_index=self._windows * WINDOW,
            timestamp=_seconds(self._windows),
            speech_duration=_seconds(speech),
            silence_duration=_seconds(silence),
            speaking=kind is vad.VADEventType.START_OF_SPEECH
            or (kind is vad.VADEventType.INFERENCE_DONE and self._speaking),
        )


def _seconds(windows: int) -> float:
    return windows * WINDOW / SAMPLE_RATE
