"""What an operator sees of the log, as plain values. Wall times are epoch milliseconds."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from relay.outbox.records import EndpointState


class DeliveryState(StrEnum):
    """Where an event stands for one endpoint."""

    RETRYING = "retrying"
    """It has failed, is tried again, and holds up those behind it on its stream."""
    PARKED = "parked"
    """It has failed for long, and is tried again aside."""
    DEAD = "dead"
    """It was given up on, and is kept."""
    PENDING = "pending"
    """Its turn has not come yet."""
    DELIVERED = "delivered"
    SETTLED = "settled"
    """It is done with, and no delivery of it is on record: it was not asked for, or a later interim took its place, or
    the record is older than the retention."""


UNDELIVERED = (DeliveryState.RETRYING, DeliveryState.PARKED, DeliveryState.DEAD, DeliveryState.PENDING)


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint, and what the log has for it."""

    state: EndpointState
    pending: int
    """Events that it asks for and that its lanes have not passed yet."""
    oldest_pending: int | None
    """When the first of them was appended."""
    retrying: int
    """Lanes whose next event has failed and is tried again."""
    parked: int
    dead: int
    resending: int = 0
    """Streams of which it is sent events again."""


@dataclass(frozen=True, slots=True)
class EventView:
    """An event as it stands in the log."""

    id: str
    type: str
    stream_id: str
    sequence: int
    room: str
    participant: str
    emitted_at: int
    body: bytes
    """Its JSON; empty for an interim that is over, and for what was purged."""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """An event and one endpoint: there is one for every lane of the event's stream."""

    endpoint: str
    state: DeliveryState
    at: int
    """Since when it is in that state."""
    event_id: str
    type: str
    room: str
    participant: str
    stream_id: str
    sequence: int
    attempts: int
    """Failed attempts; for one that is delivered, the attempt that was."""
    next_at: int | None
    """When it is tried next, at the earliest; for one that is being tried, the end of the lease."""
    reason: str | None
    """Why the last attempt failed, in a few words."""
    failed_at: int | None = None
    """When that was; None where no attempt is on record."""


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One POST that was made."""

    n: int
    """The log's own number of it: they grow."""
    endpoint: str
    event_id: str
    type: str
    number: int
    """1 for the event's first attempt."""
    at: int
    stage: str
    """``ok``, or the stage that failed."""
    status: int | None
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class EventDeliveries:
    """What became of one event, endpoint by endpoint, and every attempt that is on record, in their order."""

    event: EventView
    deliveries: tuple[DeliveryView, ...]
    attempts: tuple[AttemptView, ...]


Wanted = Callable[[str, str, str, str], bool]
"""Whether an endpoint asks for the events of a room, a participant and a type: the log does not know."""
