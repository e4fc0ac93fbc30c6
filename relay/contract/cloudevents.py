"""The schema of what ``format: cloudevents`` sends."""

from relay.contract.json_schema import Schema
from relay.events.catalog import CATALOG

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
_ALWAYS = ("specversion", "id", "source", "type", "time", "datacontenttype", "data")
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
    "required": list(_ALWAYS),
}


def cloudevent(name: str, ref: str) -> Schema:
    """The schema of an event of this type in its CloudEvent. ``ref`` leads to a definition by its name."""
    event = {"type": {"const": name}, "data": {"$ref": ref.format(model=CATALOG[name].__name__)}}
    return {"allOf": [{"$ref": ref.format(model="CloudEvent")}, {"type": "object", "properties": event}]}
