"""The log's records and lanes, as plain values. Wall times are epoch milliseconds.

Types created for every event are tuples: a frozen dataclass takes four times as long to create.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from relay.clock import epoch_ms
from relay.events.envelope import Delivery, LoggedEvent, StreamEvent
from relay.events.operator import DisabledBecause, RelayEvent
from relay.events.stream import StreamEnded

INTERIM_TTL_MS = 10_000
"""How long an interim is worth sending."""


class Record(NamedTuple):
    """An event in the log: its bytes, and what the dispatcher must know without parsing them."""

    sequence: int
    id: str
    type: str
    delivery: Delivery
    utterance: str | None
    revision: int | None
    emitted_at: int
    expires_at: int | None
    body: bytes
    closes: bool = False
    """True for the stream's last event: the stream is closed in the same transaction."""


Growth = Mapping[int, Sequence[Record]]
"""Streams that have grown, by the log's own numbers, each with its new records: committed, in order and without a gap.
Empty if they are not known and must be read."""


def record(event: LoggedEvent | RelayEvent) -> Record:
    """Create the record of an event: the bytes that every attempt sends are made here, once."""
    emitted_at = epoch_ms(event.timestamp if isinstance(event, RelayEvent) else event.timing.emitted_at)
    utterance = event.utterance if isinstance(event, StreamEvent) else None
    return Record(
        sequence=event.stream.sequence,
        id=event.id,
        type=event.type,
        delivery=event.delivery,
        utterance=utterance.id if utterance else None,
        revision=utterance.revision if utterance else None,
        emitted_at=emitted_at,
        expires_at=emitted_at + INTERIM_TTL_MS if event.delivery is Delivery.LATEST else None,
        body=event.model_dump_json().encode(),
        closes=isinstance(event, StreamEnded),
    )


@dataclass(frozen=True, slots=True)
class NewStream:
    """What the log stores about a stream beside its events."""

    id: str
    room_sid: str
    room: str
    track_sid: str
    """Empty for the room's own stream: one is open at a time, as for a track."""
    participant: str
    """The participant's identity; empty for the room's own stream."""


@dataclass(frozen=True, slots=True)
class Append:
    """Records that continue a stream at its end, written by the holder of its fence."""

    stream: int
    """The log's own number of the stream."""
    fence: int
    records: Sequence[Record]


class StreamShare(NamedTuple):
    """The streams whose number modulo ``of`` is ``remainder``."""

    remainder: int
    of: int
    only: bool = False
    """Whether what others should have taken by now is theirs all the same."""


EVERY_STREAM = StreamShare(0, 1)

OVERDUE_MS = 2_000
"""After this time, a lane that is due is free for the dispatchers that it does not belong to."""


class LanesWanted(NamedTuple):
    """How many due lanes of an endpoint a dispatcher with this share of the streams asks for."""

    endpoint: str
    most: int
    share: StreamShare


@dataclass(frozen=True, slots=True)
class Lane:
    """A leased cursor: one endpoint's position in one stream's log."""

    id: int
    endpoint: str
    stream: int
    """The log's own number of the stream."""
    cursor: int
    """Sequence of the last event that is settled for this endpoint; 0 before the first."""
    last_sent: int
    """Sequence of the last event that was sent to it, 0 if none: the ``relay-previous-sequence`` of the next."""
    attempts: int
    """Failed attempts of the event behind the cursor."""
    fence: int
    """Grows with every claim; a settle with an older one is refused."""
    lease_until: int
    room: str
    """Empty for the relay's own streams, which belong to no room."""
    participant: str
    failing_since: int | None = None
    """When the event behind the cursor first failed; None if it has not."""


def leased(row: Sequence[Any], until: int) -> Lane:
    """The lane of a claimed row: its columns in the order of :class:`Lane`, without the lease's end."""
    lane, endpoint, stream, cursor, last_sent, attempts, fence, failing_since, room, participant = row
    failing_since = failing_since if attempts else None
    return Lane(lane, endpoint, stream, cursor, last_sent, attempts, fence, until, room, participant, failing_since)


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """A leased event that has left its lane's order and is retried separately."""

    lane: int
    endpoint: str
    stream: int
    record: Record
    attempts: int
    """Failed attempts so far."""
    previous: int
    """The ``relay-previous-sequence`` of its first attempt."""
    fence: int
    lease_until: int
    room: str
    """The room's name; empty for the relay's own streams."""
    participant: str
    """The participant's identity; empty for a room's own stream."""
    resend: int | None = None
    """The log's number of its resend, if it is not parked but delivered and sent again."""


class Attempt(NamedTuple):
    """The record of one POST."""

    lane: int
    sequence: int
    number: int
    """1 for the event's first attempt."""
    at: int
    stage: str
    """``ok``, or where it failed: a stage of :mod:`relay.dispatch.http.outcome`."""
    status: int | None
    """The HTTP status; None if none was received."""
    elapsed_ms: float
    answer: str | None = None
    """The beginning of the answer, printable; None if it is not to be kept, or none came."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up on: kept, and replayable."""

    sequence: int
    attempts: int
    reason: str
    previous: int
    """The ``relay-previous-sequence`` of its attempts."""


@dataclass(frozen=True, slots=True)
class Parking:
    """A lane's head that is parked, so that the events behind it may continue."""

    sequence: int
    attempts: int
    reason: str
    previous: int
    retry_at: int
    failed_at: int | None = None
    """As in a settlement, like the next field."""
    outage: bool = False


class Settlement(NamedTuple):
    """The result of a lane's head.

    ``next_at`` None keeps the lane leased (the event is settled, the next may be sent); a wall time releases the lane
    until then (the head is retried).
    """

    lane: int
    fence: int
    cursor: int
    last_sent: int
    attempts: int
    next_at: int | None = None
    tries: tuple[Attempt, ...] = ()
    dead: DeadLetter | None = None
    parked: Parking | None = None
    failing_since: int | None = None
    """With ``next_at``: when the head first failed."""
    failed_at: int | None = None
    """With ``next_at``: when it last failed; None if nothing shortens the wait."""
    outage: bool = False
    """With ``next_at``: whether the endpoint may have been at fault: a recovery then makes the head due at once."""

    @property
    def goes_on(self) -> bool:
        """Whether the head is finished, and the lane's next event may be sent."""
        return self.next_at is None and self.dead is None and self.parked is None


@dataclass(frozen=True, slots=True)
class ParkedSettlement:
    """The result of a parked event: with ``retry_at`` it is retried then, without it is finished."""

    lane: int
    sequence: int
    fence: int
    attempts: int
    retry_at: int | None = None
    tries: tuple[Attempt, ...] = ()
    dead: DeadLetter | None = None
    reason: str = ""
    """With ``retry_at``: why it failed."""
    failed_at: int | None = None
    """As in a :class:`Settlement`, like the next field."""
    outage: bool = False
    resend: int | None = None
    """As in the claim."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What the log knows about an endpoint, for dispatchers and operators."""

    name: str
    active: bool
    """Whether the configuration names it, or it was made over the API."""
    disabled_at: int | None = None
    disabled_because: DisabledBecause | None = None
    failing_since: int | None = None
    """When it began to fail without a success since; None while it succeeds."""
    succeeded_at: int | None = None
    failed_at: int | None = None
    last_error: str | None = None
    resting_until: int | None = None
    """Nothing is sent to it until then, or until its dispatcher restarts; past, or None: the breaker is not open."""
    by_api: bool = False
    """Whether it was made over the API, and no endpoint of the configuration has its name."""


@dataclass(frozen=True, slots=True)
class Health:
    """An endpoint's health, as its dispatcher knows it."""

    endpoint: str
    failing_since: int | None
    """None if it does not fail: the log clears its value."""
    succeeded_at: int | None
    """None if unknown: the log keeps its value. The same for the next two."""
    failed_at: int | None
    last_error: str | None
    resting_until: int | None = None
    """None if the breaker is not open: the log clears its value."""
    has_rest_changed: bool = True
    """Otherwise the log keeps its value: it may be another dispatcher's."""


@dataclass(frozen=True, slots=True)
class StoredApiEndpoint:
    """An endpoint as the log has it."""

    name: str
    tenant: str | None
    options: str
    """As JSON; empty if it is removed."""
    secrets: tuple[str, ...]
    """Newest first."""
    within: tuple[str, ...]
    """Globs of the rooms that it may get at most."""
    change: int
    made_at: int
    expires_at: int | None
    removed: bool
    made_by: str | None
    """The name of the token that made it, empty if none was required; None if an earlier version made it."""


class Stored(Enum):
    """The result of a request to store an endpoint."""

    MADE = "made"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    CONFIGURED = "configured"
    """An endpoint of the configuration has the name."""
    TAKEN = "taken"
    """An endpoint of another tenant has the name."""
    FORMER = "former"
    """The log still has the record of a former endpoint of that name, which was another's."""
    FULL = "full"
    """There are as many as there may be."""
    TENANT_FULL = "tenant full"
    """The tenant has as many as one tenant may have."""
    FORMER_FULL = "former full"
    """The log knows as many of the tenant as it may, removed ones included."""
    PATTERNS_FULL = "patterns full"
    """The tenant's patterns would be too many or too long together."""

    @property
    def done(self) -> bool:
        return self in (Stored.MADE, Stored.CHANGED, Stored.UNCHANGED)
