"""What is told when a detector fails."""

from collections.abc import Callable

from aiohttp import ClientResponseError
from livekit.agents import APIStatusError

OnFault = Callable[[str], None]
"""Is told once per outage, in words for the operator."""

_HINTS = {
    401: " (wrong API key?)",
    403: " (not allowed for this API key)",
    402: " (no credit left?)",
    429: " (too many requests)",
    # Websocket close codes, where a provider lets everybody in and then says why not.
    1008: " (wrong API key, or an account that may not?)",
    3009: " (too many sessions)",
}


def describe(error: Exception) -> str:
    """The kind of an error. Its own message stays out: providers quote requests, keys and transcripts."""
    match error:
        case APIStatusError(status_code=status) | ClientResponseError(status=status):
            return f"{type(error).__name__} {status}{_HINTS.get(status, '')}"
        case _:
            return type(error).__name__
