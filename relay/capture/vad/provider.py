"""Creates voice activity detectors by name."""

import math
from collections.abc import Callable
from typing import Any

from livekit.agents import inference, vad

from relay.capture.plugins import build
from relay.config.capture import Provider
from relay.errors import ProviderError

MIN_SILENCE_S = 0.55
"""Silence that ends a segment, unless ``min_silence_duration`` is set. The Silero plugin's default; the bundled
detector's own, 0.25 s, would cut sentences at every breath, and the two should be interchangeable."""

ACTIVATION = 0.5
"""The ``activation_threshold`` of both detectors where none is set."""

KEY = "capture.vad"

_MEASURES = {
    "activation_threshold": ("a probability, such as 0.5", 1.0),
    "deactivation_threshold": ("a probability, such as 0.35", 1.0),
    "min_speech_duration": ("a number of seconds, such as 0.05", math.inf),
    "min_silence_duration": ("a number of seconds, such as 0.55", math.inf),
}
"""Options that the detectors accept unchecked, and then fail on the first audio or detect nothing: the type and the
maximum of each. The minimum is 0."""


def load_vad(provider: Provider) -> vad.VAD | None:
    """The detector, its model loaded; None for ``none``. Raises ProviderError."""
    options = _options(provider)
    match provider.provider:
        case "none":
            return None
        case "silero":
            # Imported only if needed: it brings onnxruntime and its own model.
            from livekit.plugins import silero

            return _built(silero.VAD.load, options)
        case "livekit":
            return _built(inference.VAD, options)
        case other:
            raise ProviderError(f"{KEY}.provider: {other} is not known; choose silero, livekit or none")


def bundled_vad() -> vad.VAD:
    """LiveKit's own detector, for speech recognition that needs segmented audio."""
    return inference.VAD(min_silence_duration=MIN_SILENCE_S)


def min_silence_s(provider: Provider) -> float:
    """How long the detector waits before it ends a segment, in seconds."""
    return float(_options(provider)["min_silence_duration"])


def _options(provider: Provider) -> dict[str, Any]:
    return {"min_silence_duration": MIN_SILENCE_S, **provider.options}


def _built(factory: Callable[..., vad.VAD], options: dict[str, Any]) -> vad.VAD:
    """Build the detector, with its thresholds and durations validated.

    Raises ProviderError as :func:`build` does, or where one of these is not a number or is out of range.
    """
    for option, (what, most) in _MEASURES.items():
        if option in options and not _between(options[option], most):
            limits = "0 or more" if most == math.inf else f"from 0 to {most:g}"
            raise ProviderError(f"{KEY}.options.{option}: not a possible value; write {what}, {limits}, without quotes")
    activation = options.get("activation_threshold", ACTIVATION)
    if options.get("deactivation_threshold", 0) > activation:
        raise ProviderError(
            f"{KEY}.options.deactivation_threshold: is above activation_threshold ({activation:g}), so that speech "
            "would be over as it begins; write a smaller one, or leave it out"
        )
    return build(factory, options, KEY)


def _between(value: object, most: float) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and 0 <= value <= most
