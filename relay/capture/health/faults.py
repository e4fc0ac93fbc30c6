"""What is told when a detector fails."""

import asyncio
from collections.abc import Callable

from aiohttp import ClientError, ClientResponseError
from livekit.agents import APIConnectionError, APIStatusError

from relay.events.source import SourceFailure

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


def describe(error: Exception | None) -> str:
    """The kind of an error. Its own message stays out: providers quote requests, keys and transcripts. None: it ended
    by itself, and gave no reason."""
    if error is None:
        return "it ended its stream"
    status = _status(error)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}{_HINTS.get(status, '')}"


def kind_of(error: Exception) -> SourceFailure:
    """Why a provider failed, going by the error that its stream ended with."""
    status = _status(error)
    if status in _HINTS:
        return "refused"
    if status is not None and 500 <= status < 600:
        return "unreachable"
    if status is not None:
        return "lost"
    return (
        "unreachable"
        if isinstance(error, APIConnectionError | ClientError | OSError | asyncio.TimeoutError)
        else "lost"
    )


def _status(error: Exception) -> int | None:
    match error:
        case APIStatusError(status_code=status) | ClientResponseError(status=status):
            return status
        case _:
            return None
