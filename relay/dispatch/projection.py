"""The body that an endpoint gets: excluded parts of the event emptied, and on request inside a CloudEvent."""

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from relay.config.endpoint import Include
from relay.outbox.records import Record

CLOUDEVENTS_CONTENT_TYPE = "application/cloudevents+json"

_SOURCE = "/speech-relay"
_KEPT = 1024


def project(body: bytes, include: Include) -> bytes:
    """The event's JSON with excluded parts emptied; the same object if nothing is excluded.

    Deterministic: the same event and the same ``include`` give the same bytes, on every attempt.
    """
    if include.text and include.words and include.attributes is True:
        return body
    event: dict[str, Any] = json.loads(body)
    data, participant = event.get("data", {}), event.get("participant", {})
    changed = False
    if not include.text and data.get("text"):
        data["text"], changed = "", True
    if not (include.text and include.words) and data.get("words"):
        data["words"], changed = [], True
    if include.attributes is not True and (attributes := participant.get("attributes")):
        wanted = include.attributes or ()
        left = {name: value for name, value in attributes.items() if name in wanted}
        changed |= len(left) < len(attributes)
        participant["attributes"] = left
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() if changed else body


def to_cloudevent(body: bytes) -> bytes:
    """An event's JSON as the ``data`` of a CloudEvent, byte for byte, with the attributes that brokers route by.

    CloudEvents 1.0, structured JSON: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md

    ``source`` is the room, ``subject`` the participant's identity or the endpoint's name. ``partitionkey`` and
    ``sequence`` are CloudEvents' own extensions: the stream, and the position in it, with leading zeros because they
    compare as text.
    """
    event: dict[str, Any] = json.loads(body)
    attributes = {
        "specversion": "1.0",
        "id": event["id"],
        "source": f"{_SOURCE}/rooms/{quote(event['room']['name'], safe='')}" if "room" in event else _SOURCE,
        "type": event["type"],
        "time": event["timestamp"],
        "datacontenttype": "application/json",
    }
    if subject := event.get("participant", {}).get("identity") or event.get("data", {}).get("endpoint"):
        attributes["subject"] = subject
    if "stream" in event:
        attributes["partitionkey"] = event["stream"]["id"]
        attributes["sequence"] = f"{event['stream']['sequence']:010}"
    head = json.dumps(attributes, ensure_ascii=False, separators=(",", ":")).encode()
    return b'%s,"data":%s}' % (head[:-1], body)


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of an endpoint's request bodies: endpoints with the same shape get the same bytes."""

    include: Include
    format: Literal["standard", "cloudevents"] = "standard"

    @property
    def is_the_logs(self) -> bool:
        """Whether the log's bytes are sent unchanged."""
        include = self.include
        return self.format == "standard" and include.text and include.words and include.attributes is True


class Projections:
    """Caches the bodies of the newest events, so that endpoints with the same shape share the work."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, Shape], bytes] = {}

    def of(self, record: Record, shape: Shape) -> bytes:
        if shape.is_the_logs:
            return record.body
        key = (record.id, shape)
        body = self._done.get(key)
        if body is None:
            if len(self._done) >= _KEPT:
                del self._done[next(iter(self._done))]
            body = project(record.body, shape.include)
            body = self._done[key] = to_cloudevent(body) if shape.format == "cloudevents" else body
        return body
