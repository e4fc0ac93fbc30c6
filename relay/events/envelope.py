"""The base of all wire models (strict, frozen, no unknown fields), and the envelope around every event."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, ConfigDict, Field, PlainSerializer

from relay.clock import rfc3339
from relay.documented import Documented

Instant = Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""A UTC time, written as ``2026-11-21T10:15:05.482Z``."""


class Model(Documented):
    """The base of every wire model. The docstring under a field is its description in the JSON Schema."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


API_VERSION: Literal["2026-11-01"] = "2026-11-01"

Detector = Literal["vad", "stt", "session", "realtime", "tracker", "room"]
"""The component that reported the event: a detector, the tracker that fuses them, or the LiveKit room."""


class Delivery(StrEnum):
    """The delivery guarantee: ``durable`` events are never dropped; of ``latest`` events only the newest counts."""

    DURABLE = "durable"
    LATEST = "latest"


class RoomRef(Model):
    sid: str
    """LiveKit's room sid. It changes each time a room of this name is created."""
    name: str


class ParticipantRef(Model):
    sid: str
    """LiveKit's participant sid. It changes each time this identity joins."""
    identity: str
    name: str
    """The participant's display name when the stream started. Of one that is longer than 256 characters, the beginning,
    with an ellipsis."""
    kind: str
    """LiveKit's participant kind: standard, sip, connector, …"""
    attributes: dict[str, str]
    """The participant's attributes when the stream started."""
    attributes_omitted: int = Field(default=0, ge=0, exclude_if=lambda omitted: omitted == 0)
    """The number of attributes left out, largest first, because together they exceed 4 KB of JSON. The key is absent
    where none is left out."""


class StreamRef(Model):
    id: str
    """One audio track of one participant while the relay listens to it."""
    sequence: int = Field(ge=1)
    """1, 2, 3, … without gaps within the stream."""
    track_sid: str
    track_source: str
    """LiveKit's track source: microphone, screen_share_audio, unknown; ``file`` for a WAV."""


class UtteranceRef(Model):
    id: str
    """The same in every event about this utterance."""
    index: int = Field(ge=0)
    """0 for the stream's first utterance, then 1, 2, …"""
    revision: int = Field(ge=1)
    """Increases with every event about the utterance: of two interims the higher one is newer."""


class Timing(Model):
    """When the event happened. A time that was not measured is null; the relay never estimates one."""

    occurred_at: Instant | None
    """When it happened acoustically: the audio clock mapped to wall time through the relay's own sample anchors."""
    detected_at: Instant
    """When the detector reported it."""
    emitted_at: Instant
    """When the relay appended the event to its log."""
    media_start_ms: int | None
    """Start in milliseconds of audio since the stream's first frame."""
    media_end_ms: int | None
    """End in milliseconds of audio since the stream's first frame."""
    timed_by: Detector | None
    """What measured the media times; null where nothing did."""
    reliable: bool
    """False where the detector's times cannot be trusted, for example after its plugin reconnected in mid-speech."""


class Source(Model):
    detector: Detector
    stt: str | None
    """Provider and model of the speech-to-text, such as ``deepgram/nova-3``; null without one."""
    vad: str | None
    """Provider of the voice activity detection, such as ``silero``; null without one."""
    realtime: str | None = None
    """Provider and model of the realtime model, such as ``openai/gpt-realtime``; null without one."""


class Event(Model):
    """The fields of every event. A concrete event adds its ``type`` literal and its ``data``."""

    delivery: ClassVar[Delivery] = Delivery.DURABLE

    type: str
    timestamp: Instant
    """When it happened: ``timing.occurred_at`` where that is known, otherwise when it was detected."""
    id: str
    """Also the ``webhook-id`` header. It is the same on every attempt: use it to discard duplicates."""
    api_version: Literal["2026-11-01"] = API_VERSION


class StreamEvent(Event):
    """An event about one stream."""

    room: RoomRef
    participant: ParticipantRef
    stream: StreamRef
    utterance: UtteranceRef | None
    """The utterance that the event is about; null where it is about none."""
    timing: Timing
    source: Source


class UtteranceEvent(StreamEvent):
    """An event that always refers to an utterance."""

    utterance: UtteranceRef


class RoomStreamRef(Model):
    id: str
    """The room's own stream, for events about several participants."""
    sequence: int = Field(ge=1)
    """1, 2, 3, … without gaps within the stream."""


class RoomEvent(Event):
    """An event about a room as a whole. It has no participant and no utterance; its data lists the participants.

    Its media times are null, because each track has its own audio clock.
    """

    room: RoomRef
    stream: RoomStreamRef
    timing: Timing
    source: Source


LoggedEvent = StreamEvent | RoomEvent
"""An event of a stream's log."""
