"""Names of speech recognition and realtime providers, without importing any of them."""

import shlex
from importlib.metadata import version
from importlib.util import find_spec

from relay.config.capture import Capture

_EXTRAS = ("assemblyai", "cartesia", "moonshine", "openai")


def module_of(name: str) -> str:
    """The module required for ``capture.stt.provider: name``, or for ``capture.realtime``."""
    match name:
        case "livekit":
            return "livekit.agents"
        case "moonshine":
            return "moonshine_voice"
        case _:
            return f"livekit.plugins.{name.replace('-', '_')}"


def modules_of(capture: Capture) -> list[str]:
    """The modules that a listening process imports for its detectors; some may not be installed."""
    if capture.observe is not None:
        return []
    names = (
        [capture.realtime.provider] if capture.realtime is not None else [capture.vad.provider, capture.stt.provider]
    )
    return [module_of(name) for name in names if name != "none"]


def package_of(name: str) -> str:
    """The PyPI package that contains it. The extras are those that are tested with each release."""
    return f"speech-relay[{name}]" if name in _EXTRAS else f"livekit-plugins-{name.replace('_', '-')}"


def installing(name: str) -> str:
    """How to install it: an extra of the relay from a clone, or a plugin of livekit-agents' version.

    The relay itself is not on PyPI, so an extra cannot be installed by the relay's name.
    """
    if name in _EXTRAS:
        return f"pip install '.[{name}]' in a clone of speech-relay (the extra {name})"
    requirement = f"{package_of(name)}=={version('livekit-agents')}"
    return f"pip install {shlex.quote(requirement)}"


def is_installed(name: str) -> bool:
    """Whether the module is installed; it is not imported."""
    try:
        return find_spec(module_of(name)) is not None
    except ModuleNotFoundError:
        return False
