"""The operator's view of the log, as plain values. Wall times are epoch milliseconds."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relay.outbox.records import EndpointState


class DeliveryState(StrEnum):
    """The state of an event for one endpoint."""

    RETRYING = "retrying"
    """It has failed, is retried, and blocks the events behind it on its stream."""
    PARKED = "parked"
    """It has failed for long, and is retried separately."""
    DEAD = "dead"
    """It was given up on, and is kept."""
    PENDING = "pending"
    """Its turn has not come yet."""
    DELIVERED = "delivered"
    SETTLED = "settled"
    """It is finished, with no delivery on record: it was not subscribed to, or a later interim replaced it, or the
    record is older than the retention."""


UNDELIVERED = (DeliveryState.RETRYING, DeliveryState.PARKED, DeliveryState.DEAD, DeliveryState.PENDING)


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint, and its backlog in the log."""

    state: EndpointState
    pending: int = 0
    """Subscribed events that its lanes have not passed yet."""
    oldest_pending: int | None = None
    """When the first of them was appended."""
    retrying: int = 0
    """Lanes whose next event has failed and is retried."""
    parked: int = 0
    dead: int = 0
    resending: int = 0
    """Streams with a resend to the endpoint."""
    more_pending: bool = False
    """Whether more may be pending: only so many events were read."""

    @classmethod
    def new(cls, name: str) -> "EndpointView":
        """One that the log does not know yet."""
        return cls(EndpointState(name, active=False))

    def word(self, configured: Container[str], now: int) -> str:
        """How it stands: ``enabled``, ``disabled``, ``resting``, ``new`` or ``not in config``."""
        state = self.state
        if state.disabled_at is not None:
            return "disabled"
        if state.resting_until is not None and state.resting_until > now:
            return "resting"
        if state.active:
            return "enabled"
        return "new" if state.name in configured else "not in config"


@dataclass(frozen=True, slots=True)
class EventView:
    """An event in the log."""

    id: str
    type: str
    stream_id: str
    sequence: int
    room: str
    participant: str
    emitted_at: int
    body: bytes
    """Its JSON; empty for an expired interim, and for a purged event."""

    @classmethod
    def of(cls, stream: Any, event: Any) -> "EventView":
        """From a row of the stream and a row of the event."""
        return cls(
            id=event.id,
            type=event.type,
            stream_id=stream.stream_id,
            sequence=event.sequence,
            room=stream.room,
            participant=stream.participant,
            emitted_at=event.emitted_at,
            body=event.body,
        )


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """An event and one endpoint: one for every lane of the event's stream."""

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
    """Failed attempts; for a delivered event, the successful attempt's number."""
    next_at: int | None
    """The earliest time of the next attempt; during an attempt, the end of the lease; None while its endpoint is
    disabled."""
    reason: str | None
    """Why the last attempt failed, in a few words."""
    failed_at: int | None
    """When that was; None if no attempt is on record."""


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One POST that was made."""

    n: int
    """The log's own number of it, in ascending order."""
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
    answer: str | None = None
    """The beginning of the answer, if the endpoint has ``keep_answers``."""


@dataclass(frozen=True, slots=True)
class AttemptCount:
    """The attempts for an endpoint in a period."""

    endpoint: str
    at: int
    """When the period begins."""
    ok: int
    failed: int
    slowest_ms: float


@dataclass(frozen=True, slots=True)
class UtteranceView:
    """An utterance with its events, and their deliveries and attempts."""

    stream_id: str
    room: str
    participant: str
    events: tuple[EventView, ...]
    """In order."""
    deliveries: tuple[DeliveryView, ...]
    attempts: tuple[AttemptView, ...]


@dataclass(frozen=True, slots=True)
class EventDeliveries:
    """The state of one event per endpoint, and every recorded attempt, in order."""

    event: EventView
    deliveries: tuple[DeliveryView, ...]
    attempts: tuple[AttemptView, ...]


Wanted = Callable[[str, str, str, str], bool]
"""Whether an endpoint subscribes to a room, a participant and a type, which the log does not know."""
