"""The relay about itself: ``ping``, and what its operator should know about endpoints, deliveries and limits."""

from typing import Literal

from pydantic import Field

from relay.events.envelope import Event, RoomRef
from relay.events.model import Instant, Model


class PingData(Model):
    endpoint: str
    """The name that the endpoint has in config.yaml."""


class Ping(Event):
    """A test that the URL, the signature and the receiver work."""

    type: Literal["ping"] = "ping"
    data: PingData


class RelayStreamRef(Model):
    id: str
    """The relay's own stream: one about each endpoint, and one about what it listens to."""
    sequence: int = Field(ge=1)
    """1, 2, 3, … without gaps within the stream."""


class RelayEvent(Event):
    """An event about the relay itself. It goes to every endpoint that asks for it, whatever rooms and participants that
    asks for. One about an endpoint never goes to that endpoint."""

    stream: RelayStreamRef


DisabledBecause = Literal["gone", "failing", "operator"]


class EndpointDisabledData(Model):
    endpoint: str
    """The name that the endpoint has in config.yaml."""
    reason: DisabledBecause
    """gone: it answered 410; failing: it took nothing for ``disable_after``; operator: `speech-relay endpoints`."""
    failing_since: Instant | None
    """Since when it has failed without a success; null where it has not."""
    last_error: str | None
    """Why the last attempt failed, in a few words; null where none has."""


class EndpointDisabled(RelayEvent):
    """Nothing is sent to this endpoint any more. Its events are kept until it is enabled again."""

    type: Literal["endpoint.disabled"] = "endpoint.disabled"
    data: EndpointDisabledData


class EndpointEnabledData(Model):
    endpoint: str
    replay: bool
    """True where it gets what it has missed; false where it goes on from now."""
    disabled_at: Instant
    """Since when nothing was sent to it."""


class EndpointEnabled(RelayEvent):
    """The endpoint is sent to again."""

    type: Literal["endpoint.enabled"] = "endpoint.enabled"
    data: EndpointEnabledData


class UndeliveredData(Model):
    endpoint: str
    event_id: str
    """The event that could not be delivered: the ``webhook-id`` of its attempts."""
    event_type: str
    stream_id: str
    sequence: int
    """Its place in that stream."""
    attempts: int
    """How often it was tried."""
    reason: str
    """Why the last attempt failed, in a few words."""


class DeliveryParked(RelayEvent):
    """An event has failed for so long that it no longer holds up those behind it; it is retried aside."""

    type: Literal["delivery.parked"] = "delivery.parked"
    data: UndeliveredData


class DeliveryDead(RelayEvent):
    """The last attempt has failed. The event is kept, and can be sent again with `speech-relay deliveries retry`."""

    type: Literal["delivery.dead"] = "delivery.dead"
    data: UndeliveredData


CaptureLimit = Literal["max_tracks_per_participant", "max_streams_per_room"]


class CaptureLimitedData(Model):
    limit: CaptureLimit
    """The key of ``capture`` in config.yaml."""
    maximum: int
    """Its value."""
    room: RoomRef
    participant_sid: str | None
    """LiveKit's sid of the participant with too many tracks; null where the room has too many."""


class CaptureLimited(RelayEvent):
    """An audio track is not listened to, because a limit of ``capture`` is reached. Told once for each participant, or
    once for the room, not for each track. The track is listened to as soon as another one has ended."""

    type: Literal["capture.limited"] = "capture.limited"
    data: CaptureLimitedData
