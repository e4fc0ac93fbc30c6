"""What is told when a detector fails."""

from collections.abc import Callable

from livekit.agents import APIStatusError

OnFault = Callable[[str], None]
"""Is told once per outage, in words for the operator."""

_HINTS = {
    401: " (wrong API key?)",
    403: " (not allowed for this API key)",
    402: " (no credit left?)",
    429: " (too many requests)",
}


def describe(error: Exception) -> str:
    """The kind of an error. Its own message stays out: providers quote requests, keys and transcripts."""
    if isinstance(error, APIStatusError):
        return f"{type(error).__name__} {error.status_code}{_HINTS.get(error.status_code, '')}"
    return type(error).__name__
