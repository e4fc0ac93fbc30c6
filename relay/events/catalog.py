"""The registry: every type that leaves the system, and how to read one back."""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from relay.events.envelope import Event
from relay.events.microphone import MicrophoneMuted, MicrophoneUnmuted
from relay.events.omission import EventTooLarge, OverlapTooLarge
from relay.events.operator import (
    CaptureLimited,
    DeliveryDead,
    DeliveryParked,
    EndpointDisabled,
    EndpointEnabled,
    Ping,
)
from relay.events.overlap import OverlapEnded, OverlapStarted
from relay.events.realtime import RealtimeSpeechEnded, RealtimeSpeechStarted
from relay.events.source import SourceFailed, SourceRecovered
from relay.events.speech import SpeechEnded, SpeechStarted, UtteranceCompleted
from relay.events.stream import StreamEnded, StreamStarted
from relay.events.stt import SttSpeechEnded, SttSpeechStarted
from relay.events.transcript import TranscriptFinal, TranscriptInterim
from relay.events.turn import TurnCompleted, UserStateChanged
from relay.events.vad import VadSpeechEnded, VadSpeechStarted

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
"""What an endpoint gets that names no ``events``: the fused and transcript types, no detector-level ones."""


def parse(body: bytes | str) -> Event:
    """Read an event back from its JSON.

    Raises ``KeyError`` for a type that the catalog does not have and pydantic's ``ValidationError`` for a body that
    is not exactly what its type says.
    """
    head: dict[str, Any] = json.loads(body)
    return CATALOG[head["type"]].model_validate_json(body)


def matches(event_type: str, patterns: tuple[str, ...]) -> bool:
    """Whether a type is named by one of the patterns (``speech.*``, ``transcript.final``, ``*``)."""
    return any(fnmatchcase(event_type, pattern) for pattern in patterns)


def unknown_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns that name no type at all: surely a slip of the pen."""
    return tuple(p for p in patterns if not any(fnmatchcase(t, p) for t in CATALOG))
