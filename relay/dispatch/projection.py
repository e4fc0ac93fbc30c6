"""What an endpoint gets of an event: parts of the JSON are emptied, the shape stays what the event's type says."""

import json
from typing import Any

from relay.config.models import Include
from relay.outbox.records import Record

_KEPT = 1024


def project(body: bytes, include: Include) -> bytes:
    """The event's JSON with what is not included emptied; the same object where nothing had to go.

    Deterministic: the same event and the same ``include`` give the same bytes, on every attempt.
    """
    if include.text and include.words and include.attributes:
        return body
    event: dict[str, Any] = json.loads(body)
    data, participant = event.get("data", {}), event.get("participant", {})
    changed = False
    if not include.text and data.get("text"):
        data["text"], changed = "", True
    if not (include.text and include.words) and data.get("words"):
        data["words"], changed = [], True
    if not include.attributes and participant.get("attributes"):
        participant["attributes"], changed = {}, True
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() if changed else body


class Projections:
    """Projected bodies of the newest events, so that endpoints that include the same things share the work."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, Include], bytes] = {}

    def of(self, record: Record, include: Include) -> bytes:
        if include.text and include.words and include.attributes:
            return record.body
        key = (record.id, include)
        body = self._done.get(key)
        if body is None:
            if len(self._done) >= _KEPT:
                del self._done[next(iter(self._done))]
            body = self._done[key] = project(record.body, include)
        return body
