"""Describes a realtime model's errors for the operator."""

from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import ClientResponseError
from livekit.agents import APIError

from relay.capture.health.faults import describe, kind_of
from relay.events.source import SourceFailure

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


def describe_failure(error: Exception) -> str:
    """The kind of an error: its HTTP status or its code, where known."""
    if isinstance(error.__cause__, ClientResponseError):
        return describe(error.__cause__)
    if isinstance(error, APIError) and (known := _known(error.body)) is not None:
        return known
    return describe(error)


def kind_of_failure(error: Exception) -> SourceFailure:
    """Classify a model's failure by the error that ended its session."""
    if isinstance(error.__cause__, ClientResponseError):
        return kind_of(error.__cause__)
    if isinstance(error, APIError) and _known(error.body) is not None:
        return "refused"
    return kind_of(error)


def describe_answer(message: object) -> str | None:
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
