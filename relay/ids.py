"""Identifiers: a prefix that names the thing, then a ULID (sorts by time, 26 characters)."""

from typing import Literal

from ulid import ULID

Prefix = Literal["str", "utt", "evt", "ovl"]


def new_id(prefix: Prefix) -> str:
    """A fresh identifier such as ``str_01KAJ8Q6T5ZV8K7W0C9Y4M2N3B``."""
    return f"{prefix}_{ULID()}"


def event_id(stream_id: str, sequence: int) -> str:
    """The id of an event of a stream: the same for every attempt, replay and re-read of that event."""
    return f"evt_{stream_id.removeprefix('str_')}_{sequence}"
