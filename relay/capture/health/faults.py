"""Describes and classifies the errors of detectors, for the operator."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import ClientError, ClientResponseError
from livekit.agents import APIConnectionError, APIError, APIStatusError

from relay.events.stream import SourceFailure

_HINTS = {
    401: " (wrong API key?)",
    403: " (not allowed for this API key)",
    402: " (no credit left?)",
    429: " (too many requests)",
    # Websocket close codes of providers that accept every connection and then report why they refuse.
    1008: " (wrong API key, or an account that may not?)",
    3009: " (too many sessions)",
}

_CODES: Mapping[str, str] = MappingProxyType(
    {
        "invalid_api_key": "wrong API key",
        "account_deactivated": "account deactivated",
        "insufficient_quota": "no credit left",
        "credit_balance_exhausted": "no credit left",
        "billing_hard_limit_reached": "no credit left",
        "rate_limit_exceeded": "too many requests",
        "session_expired": "session expired",
        "model_not_found": "no such model",
    }
)
"""OpenAI's codes. Any other code, and the message, is left out: both may quote the request."""

_INAUDIBLE = "audio_unintelligible"


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


def describe_model_failure(error: Exception) -> str:
    """The kind of an error: its HTTP status or its code, where known."""
    if isinstance(error.__cause__, ClientResponseError):
        return describe(error.__cause__)
    if isinstance(error, APIError) and (known := _known(error.body)) is not None:
        return known
    return describe(error)


def kind_of_model_failure(error: Exception) -> SourceFailure:
    """Classify a model's failure by the error that ended its session."""
    if isinstance(error.__cause__, ClientResponseError):
        return kind_of(error.__cause__)
    if isinstance(error, APIError) and _known(error.body) is not None:
        return "refused"
    return kind_of(error)


def describe_failed_transcription(message: object) -> str | None:
    """Why a message of OpenAI's protocol reports a failed transcription; None where it does not, or where the speech
    was not intelligible."""
    match message:
        case {"type": "conversation.item.input_audio_transcription.failed", "error": error} if not _inaudible(error):
            return _known(error) or "for a reason of its own"
        case _:
            return None


def _inaudible(error: object) -> bool:
    return isinstance(error, dict) and error.get("code") == _INAUDIBLE


def _known(error: object) -> str | None:
    for name in ("code", "type"):
        value = error.get(name) if isinstance(error, dict) else getattr(error, name, None)
        if isinstance(value, str) and value in _CODES:
            return _CODES[value]
    return None
