"""Identifiers: a prefix for the kind, then a ULID (sorts by time, 26 characters)."""

from typing import Literal

from ulid import ULID

Prefix = Literal["str", "utt", "evt", "ovl"]


def new_id(prefix: Prefix) -> str:
    """Create an identifier such as ``str_01KAJ8Q6T5ZV8K7W0C9Y4M2N3B``."""
    return f"{prefix}_{ULID()}"


def event_id(stream_id: str, sequence: int) -> str:
    """The id of a stream's event: the same for every attempt, replay and re-read of that event."""
    return f"evt_{stream_id.removeprefix('str_')}_{sequence}"
