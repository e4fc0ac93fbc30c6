"""Registers every event type that leaves the system, and parses events."""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from relay.events.detectors import (
    RealtimeSpeechEnded,
    RealtimeSpeechStarted,
    SttSpeechEnded,
    SttSpeechStarted,
    TurnCompleted,
    UserStateChanged,
    VadSpeechEnded,
    VadSpeechStarted,
)
from relay.events.envelope import Event
from relay.events.omission import EventTooLarge, OverlapTooLarge
from relay.events.operator import (
    CaptureLimited,
    DeliveryDead,
    DeliveryParked,
    EndpointDisabled,
    EndpointEnabled,
    Ping,
)
from relay.events.speech import (
    OverlapEnded,
    OverlapStarted,
    SpeechEnded,
    SpeechStarted,
    TranscriptFinal,
    TranscriptInterim,
    UtteranceCompleted,
)
from relay.events.stream import (
    MicrophoneMuted,
    MicrophoneUnmuted,
    SourceFailed,
    SourceRecovered,
    StreamEnded,
    StreamStarted,
)

_ALL: tuple[type[Event], ...] = (
    StreamStarted,
    StreamEnded,
    VadSpeechStarted,
    VadSpeechEnded,
    SttSpeechStarted,
    SttSpeechEnded,
    RealtimeSpeechStarted,
    RealtimeSpeechEnded,
    TranscriptInterim,
    TranscriptFinal,
    UserStateChanged,
    TurnCompleted,
    SpeechStarted,
    SpeechEnded,
    UtteranceCompleted,
    OverlapStarted,
    OverlapEnded,
    OverlapTooLarge,
    MicrophoneMuted,
    MicrophoneUnmuted,
    SourceFailed,
    SourceRecovered,
    EventTooLarge,
    EndpointDisabled,
    EndpointEnabled,
    DeliveryParked,
    DeliveryDead,
    CaptureLimited,
    Ping,
)

CATALOG: Mapping[str, type[Event]] = MappingProxyType({cls.model_fields["type"].default: cls for cls in _ALL})
"""Type name → event class, in the order of the documentation."""

DEFAULT_EVENTS: tuple[str, ...] = ("stream.*", "speech.*", "transcript.*", "utterance.completed", "event.too_large")
"""The default of an endpoint without ``events``: the fused and transcript types, no detector-level ones."""


def parse(body: bytes | str) -> Event:
    """Parse an event from its JSON.

    Raises ``KeyError`` for a type that is not in the catalog, and pydantic's ``ValidationError`` for a body that does
    not match its type exactly.
    """
    head: dict[str, Any] = json.loads(body)
    return CATALOG[head["type"]].model_validate_json(body)


def matches(event_type: str, patterns: tuple[str, ...]) -> bool:
    """Whether any of the patterns (``speech.*``, ``transcript.final``, ``*``) matches a type."""
    return any(fnmatchcase(event_type, pattern) for pattern in patterns)


def unknown_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns that match no type, which are most likely typos."""
    return tuple(p for p in patterns if not any(fnmatchcase(t, p) for t in CATALOG))
