"""Projects an event for an endpoint: excluded parts of the JSON are emptied, the shape stays."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from relay.config.endpoint import Include
from relay.dispatch.payload.cloudevents import wrap
from relay.outbox.records import Record

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
            body = self._done[key] = wrap(body) if shape.format == "cloudevents" else body
        return body
