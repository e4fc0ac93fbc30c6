"""Isolates the Silero plugin's private parts: its thresholds and its loaded network."""

from dataclasses import dataclass
from typing import Any, Protocol

from livekit.agents import vad

from relay.capture.audio.source import SAMPLE_RATE


class Session(Protocol):
    """The used part of an ``onnxruntime.InferenceSession``."""

    def run(self, output_names: None, input_feed: dict[str, Any]) -> list[Any]:
        """Every output for these inputs. Blocking, without the interpreter lock."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The plugin's options of the same meaning: probabilities, and seconds."""

    activation: float
    deactivation: float
    min_speech_s: float
    min_silence_s: float


def parts(detector: vad.VAD) -> tuple[Session, Thresholds] | None:
    """The network of a ``silero.VAD`` and its thresholds; None where these differ from the plugin's version 1.8, or the
    sample rate differs: then the plugin's own streams are used."""
    # by name: the import alone would load onnxruntime into a process that uses another detector
    if f"{type(detector).__module__}.{type(detector).__qualname__}" != "livekit.plugins.silero.vad.VAD":
        return None
    try:
        options, session = vars(detector)["_opts"], vars(detector)["_onnx_session"]
        thresholds = Thresholds(
            activation=options.activation_threshold,
            deactivation=options.deactivation_threshold,
            min_speech_s=options.min_speech_duration,
            min_silence_s=options.min_silence_duration,
        )
        shapes = {put.name: len(put.shape) for put in session.get_inputs()}
        known = options.sample_rate == SAMPLE_RATE and shapes == {"input": 2, "state": 3, "sr": 0}
    except (AttributeError, KeyError):
        return None
    return (session, thresholds) if known else None
