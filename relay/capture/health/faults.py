"""Describes detector failures for the operator."""

import asyncio
from collections.abc import Callable

from aiohttp import ClientError, ClientResponseError
from livekit.agents import APIConnectionError, APIStatusError

from relay.events.source import SourceFailure

OnFault = Callable[[str], None]
"""Called once per outage, with a description for the operator."""

_HINTS = {
    401: " (wrong API key?)",
    403: " (not allowed for this API key)",
    402: " (no credit left?)",
    429: " (too many requests)",
    # Websocket close codes of providers that accept every connection and then report why they refuse.
    1008: " (wrong API key, or an account that may not?)",
    3009: " (too many sessions)",
}


def describe(error: Exception | None) -> str:
    """The kind of an error. Its message is left out: providers quote requests, keys and transcripts. None: it ended by
    itself, without a reason."""
    if error is None:
        return "it ended its stream"
    status = _status(error)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}{_HINTS.get(status, '')}"


def kind_of(error: Exception) -> SourceFailure:
    """Classify a provider's failure by the error that ended its stream."""
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
