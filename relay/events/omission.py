"""What is left out of events because it is too large, and how the events say so."""

import json
from collections.abc import Mapping
from typing import Literal

from relay.events.envelope import LoggedEvent, RoomEvent, StreamEvent
from relay.events.model import Model

MOST_ATTRIBUTES = 4096
"""Bytes of JSON. A participant's attributes are in every event about them, interims too."""


class EventTooLargeData(Model):
    type: str
    """The type of the event that is missing."""
    bytes: int
    """How large it was."""
    limit: int
    """How large it may be."""


class EventTooLarge(StreamEvent):
    """An event was larger than any the relay sends. This one has its place in the stream, and says what is missing."""

    type: Literal["event.too_large"] = "event.too_large"
    data: EventTooLargeData


class OverlapTooLarge(RoomEvent):
    """The same on a room's own stream: an ``overlap.*`` event that named too many utterances."""

    type: Literal["overlap.too_large"] = "overlap.too_large"
    data: EventTooLargeData


def omitted(event: LoggedEvent, *, size: int, limit: int) -> EventTooLarge | OverlapTooLarge:
    """What is said in place of an event of ``size`` bytes: its envelope, with its id and its sequence."""
    kind = OverlapTooLarge if isinstance(event, RoomEvent) else EventTooLarge
    envelope = {name: getattr(event, name) for name in kind.model_fields if name not in ("type", "data")}
    data = EventTooLargeData(type=event.type, bytes=size, limit=limit)
    return kind.model_validate({**envelope, "data": data})


def shortened(attributes: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """The attributes without the largest ones where they are over 4 KB together, and how many are left out."""
    kept = dict(attributes)
    sizes = {name: len(json.dumps({name: value}, ensure_ascii=False).encode()) for name, value in kept.items()}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        if total <= MOST_ATTRIBUTES:
            break
        total -= sizes[name]
        del kept[name]
    return kept, len(attributes) - len(kept)
