"""The names that events use for the detectors of an embedding agent's session."""

from typing import Any

from livekit.agents import llm, stt, vad

_UNNAMED = ("", "unknown")


def provider_of(detector: vad.VAD | stt.STT[Any] | llm.RealtimeModel) -> str:
    """The name as in config.yaml: the plugin's, or ``livekit`` for components of livekit-agents."""
    package = type(detector).__module__.split(".")
    match package:
        case ["livekit", "plugins", plugin, *_]:
            return plugin
        case ["livekit", "agents", *_]:
            return "livekit"
    return (_own(detector, "provider") or package[0]).lower()


def name_of(detector: stt.STT[Any] | llm.RealtimeModel) -> str:
    """Provider and model, such as ``deepgram/nova-3``."""
    if isinstance(detector, stt.StreamAdapter):
        return name_of(detector.wrapped_stt)
    provider, model = provider_of(detector), _own(detector, "model")
    return provider if model is None else f"{provider}/{model}"


def _own(detector: object, what: str) -> str | None:
    """The name that the component gives itself, which may be of any type; None for no name."""
    try:
        name = getattr(detector, what)
    except Exception:
        return None
    return name if isinstance(name, str) and name not in _UNNAMED else None
