"""Voice activity detection by name."""

from typing import Any

from livekit.agents import inference, vad

from relay.capture.providers.options import build
from relay.config.capture import Provider
from relay.errors import ProviderError

MIN_SILENCE_S = 0.55
"""Silence that ends a segment, unless ``min_silence_duration`` says otherwise. The Silero plugin's default; the bundled
detector's own, 0.25 s, would cut sentences at every breath, and the two are meant to be exchangeable."""

KEY = "capture.vad"


def load_vad(provider: Provider) -> vad.VAD | None:
    """The detector, its model loaded; None for ``none``. Raises ProviderError."""
    options = _options(provider)
    match provider.provider:
        case "none":
            return None
        case "silero":
            # Imported only if asked for: it brings onnxruntime and a model of its own.
            from livekit.plugins import silero

            return build(silero.VAD.load, options, KEY)
        case "livekit":
            return build(inference.VAD, options, KEY)
        case other:
            raise ProviderError(f"{KEY}.provider: {other} is not known; choose silero, livekit or none")


def bundled_vad() -> vad.VAD:
    """LiveKit's own detector, for speech recognition that needs its audio cut into pieces."""
    return inference.VAD(min_silence_duration=MIN_SILENCE_S)


def min_silence_s(provider: Provider) -> float:
    """How long the detector waits before it ends a segment, in seconds."""
    return float(_options(provider)["min_silence_duration"])


def _options(provider: Provider) -> dict[str, Any]:
    return {"min_silence_duration": MIN_SILENCE_S, **provider.options}
