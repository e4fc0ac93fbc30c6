"""CloudEvents 1.0, structured JSON: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md"""

import json
from typing import Any
from urllib.parse import quote

CONTENT_TYPE = "application/cloudevents+json"

_SOURCE = "/speech-relay"


def wrap(body: bytes) -> bytes:
    """An event's JSON as the ``data`` of a CloudEvent, byte for byte, with the attributes that brokers route by.

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
