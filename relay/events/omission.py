"""Leaves out data that is too large, and marks the events that lack it."""

import json
from collections.abc import Mapping
from typing import Literal

from relay.events.envelope import LoggedEvent, Model, RoomEvent, StreamEvent

MOST_ATTRIBUTES = 4096
"""Bytes of JSON. A participant's attributes are in every event about that participant, interims included."""

MOST_NAME = 256
"""Characters. LiveKit refuses a longer one where a participant changes the name, but takes it from a token."""


class EventTooLargeData(Model):
    type: str
    """The type of the omitted event."""
    bytes: int
    """The size of the omitted event, in bytes."""
    limit: int
    """The maximum size, in bytes."""


class EventTooLarge(StreamEvent):
    """Replaces an event that exceeds the size limit. It keeps the event's place in the stream and names what is
    missing."""

    type: Literal["event.too_large"] = "event.too_large"
    data: EventTooLargeData


class OverlapTooLarge(RoomEvent):
    """Replaces an ``overlap.*`` event that named too many utterances, on a room's own stream."""

    type: Literal["overlap.too_large"] = "overlap.too_large"
    data: EventTooLargeData


def omitted(event: LoggedEvent, *, size: int, limit: int) -> EventTooLarge | OverlapTooLarge:
    """Make the replacement for an event of ``size`` bytes, with that event's envelope, id and sequence."""
    kind = OverlapTooLarge if isinstance(event, RoomEvent) else EventTooLarge
    envelope = {name: getattr(event, name) for name in kind.model_fields if name not in ("type", "data")}
    data = EventTooLargeData(type=event.type, bytes=size, limit=limit)
    return kind.model_validate({**envelope, "data": data})


def shortened(attributes: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """The attributes, without the largest where they exceed 4 KB together, and the number left out."""
    kept = dict(attributes)
    sizes = {name: len(json.dumps({name: value}, ensure_ascii=False).encode()) for name, value in kept.items()}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if total <= MOST_ATTRIBUTES:
            break
        total -= sizes[name]
        del kept[name]
    return kept, len(attributes) - len(kept)


def cut(name: str) -> str:
    """The beginning of a participant's name that is longer than ``MOST_NAME`` characters, with an ellipsis."""
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 1]}…"
