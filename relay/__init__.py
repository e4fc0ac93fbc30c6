"""speech-relay: who speaks in LiveKit rooms, when, and what was said, as signed webhooks."""

from typing import TYPE_CHECKING, Any

from relay.errors import ConfigError

if TYPE_CHECKING:
    from relay.embedded.speech_relay import SpeechRelay

__all__ = ["ConfigError", "SpeechRelay", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Import LiveKit only on use: `speech-relay --help` does not need it.
    if name == "SpeechRelay":
        from relay.embedded.speech_relay import SpeechRelay

        return SpeechRelay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
