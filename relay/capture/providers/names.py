"""Speech recognition and realtime models by name, without importing any of them."""

from importlib.metadata import version

from relay.config.capture import Capture

_EXTRAS = ("assemblyai", "cartesia", "moonshine", "openai")


def module_of(name: str) -> str:
    """The module that must be installed for ``capture.stt.provider: name``, or that of ``capture.realtime``."""
    match name:
        case "livekit":
            return "livekit.agents"
        case "moonshine":
            return "moonshine_voice"
        case _:
            return f"livekit.plugins.{name.replace('-', '_')}"


def modules_of(capture: Capture) -> list[str]:
    """The modules that a process which listens imports for its detectors; one may turn out not to be installed."""
    if capture.observe is not None:
        return []
    names = (
        [capture.realtime.provider] if capture.realtime is not None else [capture.vad.provider, capture.stt.provider]
    )
    return [module_of(name) for name in names if name != "none"]


def package_of(name: str) -> str:
    """What brings it, by its name on PyPI. The extras are those that are tested with each release."""
    return f"speech-relay[{name}]" if name in _EXTRAS else f"livekit-plugins-{name.replace('_', '-')}"


def requirement_of(name: str) -> str:
    """What to install for it, as pip takes it: a plugin of livekit-agents' own version, which would else be moved."""
    package = package_of(name)
    return package if name in _EXTRAS else f"{package}=={version('livekit-agents')}"
