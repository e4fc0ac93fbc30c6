"""What OpenAPI and AsyncAPI have in common: headers, answers, and the envelope of CloudEvents."""

from datetime import timedelta

from relay.config.endpoint import Retry
from relay.contract.json_schema import Schema
from relay.dispatch.policy import RETRY_AFTER_LIMIT_MS
from relay.events.catalog import CATALOG

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
        "HMAC-SHA256 of `<webhook-id>.<webhook-timestamp>.<body>`, as in Standard Webhooks. The key is what follows "
        "`whsec_` in the secret, decoded from base64.",
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


_TEXTS = {
    "specversion": "The version of CloudEvents.",
    "id": "The event's `id`, also the header `webhook-id`.",
    "source": "`/speech-relay/rooms/<name of the room>`, percent-encoded; `/speech-relay` for events about the relay.",
    "type": "The event's `type`.",
    "time": "The event's `timestamp`.",
    "datacontenttype": "Of `data`.",
    "subject": "The participant's identity, or the name of the endpoint that the event is about. Otherwise absent.",
    "partitionkey": "The stream; events are ordered within it. Absent where the event has no stream.",
    "sequence": "The position in the stream, with leading zeros: it sorts as text. Absent as `partitionkey` is.",
}
_IN_EACH = ("specversion", "id", "source", "type", "time", "datacontenttype", "data")
_FORMS: dict[str, Schema] = {
    "specversion": {"const": "1.0"},
    "source": {"format": "uri-reference"},
    "time": {"format": "date-time"},
    "datacontenttype": {"const": "application/json"},
    "sequence": {"pattern": "^[0-9]{10}$"},
}

ENVELOPE: Schema = {
    "title": "CloudEvent",
    "description": "The event inside a CloudEvents 1.0 event, as structured JSON.",
    "type": "object",
    "properties": {
        **{name: {"type": "string", **_FORMS.get(name, {}), "description": text} for name, text in _TEXTS.items()},
        "data": {"type": "object", "description": "The event."},
    },
    "required": list(_IN_EACH),
}


def cloudevent(name: str, ref: str) -> Schema:
    """The schema of an event of this type in its CloudEvent. ``ref`` leads to a definition by its name."""
    event = {"type": {"const": name}, "data": {"$ref": ref.format(model=CATALOG[name].__name__)}}
    return {"allOf": [{"$ref": ref.format(model="CloudEvent")}, {"type": "object", "properties": event}]}
