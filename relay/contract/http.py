"""How an event is sent and what its receiver may answer, for the OpenAPI and AsyncAPI documents."""

from datetime import timedelta

from relay.config.endpoint import Retry
from relay.contract.json_schema import Schema
from relay.dispatch.policy import RETRY_AFTER_LIMIT_MS

HEADERS: dict[str, Schema] = {
    "webhook-id": {
        "type": "string",
        "description": "The event's `id`, the same at every attempt: discard what you have seen.",
    },
    "webhook-timestamp": {
        "type": "integer",
        "description": "When this attempt was signed, in seconds since 1970. Refuse one that is over five minutes off.",
    },
    "webhook-signature": {
        "type": "string",
        "description": "With `signing: standard`: one `v1,<base64>` for each secret, separated by spaces. Each is the "
        "HMAC-SHA256 of `<webhook-id>.<webhook-timestamp>.<body>` with that secret, as in Standard Webhooks.",
    },
    "relay-previous-sequence": {
        "type": "integer",
        "minimum": 0,
        "description": "The `stream.sequence` sent to this endpoint before this event, on its stream; 0 for the first. "
        "If you do not have that one, you miss something.",
    },
    "relay-resend": {
        "type": "string",
        "enum": ["true"],
        "description": "You answered 2xx before, and an operator resent it. Otherwise absent.",
    },
    "relay-sample": {"type": "string", "enum": ["true"], "description": "Test data. Otherwise absent."},
}
"""Header → schema of its value."""
ALWAYS = ("webhook-id", "webhook-timestamp", "relay-previous-sequence")
"""The headers of every request."""

LIVEKIT_AUTHORIZATION = (
    "With `signing: livekit`: a JWT (HS256, without `Bearer`) signed with the key of a LiveKit project, that has the "
    "SHA-256 of the body in its claim `sha256`, as base64."
)


def answers() -> dict[str, str]:
    """Status → what the relay does, by the defaults of config.yaml."""
    retry = Retry()
    waits = ", ".join(_span(wait) for wait in retry.schedule)
    retried = f"by default after {waits}, each varied by up to {retry.jitter:.0%}. After the last one the event is dead"
    asked = (
        "Retried, not before `Retry-After`, which is honoured up to "
        f"{_span(timedelta(milliseconds=RETRY_AFTER_LIMIT_MS))}."
    )
    return {
        "2XX": "Acknowledged: the next event of the stream follows. The body of the answer is ignored.",
        "410": "The endpoint is disabled: it gets nothing until an operator enables it again. Its events are kept.",
        "429": asked,
        "503": asked,
        "default": f"Retried, {retried}. Redirects are not followed.",
    }


def _span(value: timedelta) -> str:
    seconds = round(value.total_seconds())
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
