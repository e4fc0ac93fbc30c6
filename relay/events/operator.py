"""Events about the relay itself: ``ping``, endpoints, deliveries and limits."""

from typing import Literal

from pydantic import Field

from relay.events.envelope import Event, Instant, Model, RoomRef


class PingData(Model):
    endpoint: str
    """The endpoint's name in config.yaml."""


class Ping(Event):
    """A test of the URL, the signature and the receiver."""

    type: Literal["ping"] = "ping"
    data: PingData


class RelayStreamRef(Model):
    id: str
    """The relay's own stream: one per endpoint, and one for capture."""
    sequence: int = Field(ge=1)
    """1, 2, 3, … without gaps within the stream."""


class RelayEvent(Event):
    """An event about the relay itself. It goes to every endpoint that subscribes to it, whatever the endpoint's room
    and participant filters. An event about an endpoint never goes to that endpoint."""

    stream: RelayStreamRef


DisabledBecause = Literal["gone", "failing", "operator"]
"""gone: it answered 410; failing: it accepted nothing for ``disable_after``; operator: `speech-relay endpoints`."""


class EndpointDisabledData(Model):
    endpoint: str
    """The endpoint's name in config.yaml."""
    reason: DisabledBecause
    failing_since: Instant | None
    """The start of the failures without a success since; null where it has not failed."""
    last_error: str | None
    """Why the last attempt failed, in a few words; null where no attempt failed."""


class EndpointDisabled(RelayEvent):
    """The relay stopped sending to this endpoint. Its events are kept until it is enabled again."""

    type: Literal["endpoint.disabled"] = "endpoint.disabled"
    data: EndpointDisabledData


class EndpointEnabledData(Model):
    endpoint: str
    """The endpoint's name in config.yaml."""
    replay: bool
    """True where it gets the events that it missed; false where it continues with new ones."""
    disabled_at: Instant
    """When the relay stopped sending to it."""


class EndpointEnabled(RelayEvent):
    """The relay sends to the endpoint again."""

    type: Literal["endpoint.enabled"] = "endpoint.enabled"
    data: EndpointEnabledData


class UndeliveredData(Model):
    endpoint: str
    """The endpoint's name in config.yaml."""
    event_id: str
    """The event that could not be delivered: the ``webhook-id`` of its attempts."""
    event_type: str
    """Its type."""
    stream_id: str
    """The stream that it belongs to."""
    sequence: int
    """Its sequence number in that stream."""
    attempts: int
    """The number of attempts."""
    reason: str
    """Why the last attempt failed, in a few words."""


class DeliveryParked(RelayEvent):
    """An event failed for so long that it no longer blocks those behind it. It is parked and retried separately."""

    type: Literal["delivery.parked"] = "delivery.parked"
    data: UndeliveredData


class DeliveryDead(RelayEvent):
    """The last attempt failed. The event is kept, and `speech-relay deliveries retry` sends it again."""

    type: Literal["delivery.dead"] = "delivery.dead"
    data: UndeliveredData


CaptureLimit = Literal["max_tracks_per_participant", "max_streams_per_room"]
"""The key under ``capture`` in config.yaml."""


class CaptureLimitedData(Model):
    limit: CaptureLimit
    maximum: int
    """The value of the limit."""
    room: RoomRef
    participant_sid: str | None
    """LiveKit's sid of the participant with too many tracks; null where the room has too many."""


class CaptureLimited(RelayEvent):
    """The relay does not listen to an audio track because a limit of ``capture`` is reached. Sent once per participant,
    or once per room, not per track. The relay listens to the track as soon as another one ends."""

    type: Literal["capture.limited"] = "capture.limited"
    data: CaptureLimitedData
