"""What events call the detectors of somebody else's session."""

from typing import Any

from livekit.agents import llm, stt, vad

_UNNAMED = ("", "unknown")


def provider_of(detector: vad.VAD | stt.STT[Any] | llm.RealtimeModel) -> str:
    """The name that config.yaml has for it: the plugin's, ``livekit`` for what comes with livekit-agents."""
    package = type(detector).__module__.split(".")
    match package:
        case ["livekit", "plugins", plugin, *_]:
            return plugin
        case ["livekit", "agents", *_]:
            return "livekit"
    return package[0] if detector.provider in _UNNAMED else detector.provider.lower()


def name_of(detector: stt.STT[Any] | llm.RealtimeModel) -> str:
    """Provider and model, such as ``deepgram/nova-3``."""
    if isinstance(detector, stt.StreamAdapter):
        return name_of(detector.wrapped_stt)
    provider = provider_of(detector)
    return provider if detector.model in _UNNAMED else f"{provider}/{detector.model}"
