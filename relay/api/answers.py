"""The answers of /v1, as the OpenAPI document shows them."""

from typing import Any

from relay.api.access import Viewer
from relay.clock import instant, rfc3339
from relay.documented import Documented
from relay.outbox.operator.rooms import RoomView
from relay.outbox.operator.views import AttemptView, DeliveryView

Time = str
"""``2026-11-21T10:15:05.482Z``"""


class AnswerModel(Documented):
    """The base of answers."""


class StreamInfo(AnswerModel):
    id: str
    room: str
    """Empty for the relay's own streams."""
    participant: str
    """The identity; empty for the room's own stream."""
    closed: bool
    """Whether it has ended: nothing follows its last event."""
    first_sequence: int | None
    """The first event that the log still has. If it is above ``after`` + 1, those between are gone."""
    last_sequence: int
    """The newest one, 0 if none."""


class StreamEvents(AnswerModel):
    stream: StreamInfo
    events: list[dict[str, Any]]
    """In order. Each is the JSON that is sent as a webhook, byte for byte."""
    next: int | None
    """The ``after`` of the next page; null if the log has no more of the stream yet."""


class LoggedEvent(AnswerModel):
    id: str
    type: str
    emitted_at: Time
    room: str
    participant: str
    stream_id: str
    sequence: int
    event: dict[str, Any] | None
    """The JSON that is sent as a webhook; null if the content is gone: an expired interim, or removed."""


class Events(AnswerModel):
    events: list[LoggedEvent]
    """Newest first."""
    next: str | None
    """The ``cursor`` of the next page. A page may be empty and have a next one: only so many events are looked at."""


class RoomStream(AnswerModel):
    id: str
    track_sid: str
    """Empty for the room's own stream."""
    participant: str
    opened_at: Time
    closed_at: Time | None
    last_sequence: int


class Room(AnswerModel):
    name: str
    sid: str
    """Of the newest session."""
    opened_at: Time
    """When the relay began to listen in that session."""
    closed_at: Time | None
    """When the last stream ended; null while one is open."""
    participants: list[str]
    """Identities."""

    @classmethod
    def of(cls, view: RoomView) -> "Room":
        return cls(
            name=view.name,
            sid=view.sid,
            opened_at=iso(view.opened_at),
            closed_at=iso_or_none(view.closed_at),
            participants=list(view.participants),
        )


class RoomDetail(Room):
    streams: list[RoomStream]
    """Of that session, oldest first: the first 500."""

    @classmethod
    def of(cls, view: RoomView) -> "RoomDetail":
        streams = [
            RoomStream(
                id=each.id,
                track_sid=each.track_sid,
                participant=each.participant,
                opened_at=iso(each.opened_at),
                closed_at=iso_or_none(each.closed_at),
                last_sequence=each.last_sequence,
            )
            for each in view.streams
        ]
        return cls(**Room.of(view).model_dump(), streams=streams)


class Rooms(AnswerModel):
    rooms: list[Room]
    """Those with the newest streams first."""
    next: str | None


class TranscriptLine(AnswerModel):
    participant: str
    name: str
    """As the room shows it; may be empty."""
    started_at: Time
    ended_at: Time
    text: str
    language: str | None
    event_id: str
    """Of the ``utterance.completed``."""
    utterance_id: str
    """Of two lines with the same one, that with the higher ``revision`` replaces the other."""
    revision: int


class Transcript(AnswerModel):
    room: str
    sid: str
    lines: list[TranscriptLine]
    """In the order of their starts."""
    next: str | None
    """The ``cursor`` that leads to earlier lines; null if there are none."""


class DeliveryEntry(AnswerModel):
    endpoint: str
    event_id: str
    state: str
    """``retrying``, ``parked``, ``dead``, ``pending``, ``delivered``, or ``settled``: finished, without a delivery on
    record. The list of what is settled has delivered ones, too."""
    since: Time
    type: str
    room: str
    participant: str
    stream_id: str
    sequence: int
    attempts: int
    next_attempt: Time | None
    reason: str | None
    last_failure: Time | None

    @classmethod
    def of(cls, view: DeliveryView, viewer: Viewer) -> "DeliveryEntry":
        return cls(
            endpoint=view.endpoint,
            event_id=view.event_id,
            state=view.state.value,
            since=iso(view.at),
            type=view.type,
            room=view.room,
            participant=view.participant,
            stream_id=view.stream_id,
            sequence=view.sequence,
            attempts=view.attempts,
            next_attempt=iso_or_none(view.next_at),
            reason=viewer.reason(view.reason),
            last_failure=iso_or_none(view.failed_at),
        )


class Deliveries(AnswerModel):
    deliveries: list[DeliveryEntry]
    """Retrying ones first, then parked, dead, pending and delivered ones."""
    next: str | None
    """The ``cursor`` of the next page. A page may be empty and have a next one: only so many deliveries are looked at.
    What changes its state in between may be on two pages, or on none."""


class AttemptEntry(AnswerModel):
    at: Time
    endpoint: str
    number: int
    """1 for the first. Attempts in an outage that use up no step of the schedule have the number of the one before."""
    stage: str
    """``ok``, or where it failed: dns, egress, connect, tls, write, headers, status or timeout. Only operators see
    ``egress``; to others it is ``dns``."""
    status: int | None
    """The HTTP status; null if none was received."""
    elapsed_ms: float
    answer: str | None
    """The first 1024 bytes of the answer, if the endpoint has ``keep_answers``; what does not print is escaped."""

    @classmethod
    def of(cls, view: AttemptView, viewer: Viewer) -> "AttemptEntry":
        return cls(
            at=iso(view.at),
            endpoint=view.endpoint,
            number=view.number,
            stage=viewer.stage(view.stage),
            status=view.status,
            elapsed_ms=round(view.elapsed_ms, 1),
            answer=view.answer,
        )


class EventAttempt(AttemptEntry):
    n: int
    """The log's number of it, in ascending order."""
    event_id: str
    type: str

    @classmethod
    def of(cls, view: AttemptView, viewer: Viewer) -> "EventAttempt":
        fields = AttemptEntry.of(view, viewer).model_dump()
        return cls(**fields, n=view.n, event_id=view.event_id, type=view.type)


class EventDelivery(AnswerModel):
    event_id: str
    type: str
    emitted_at: Time
    deliveries: list[DeliveryEntry]
    """One for each endpoint."""
    attempts: list[AttemptEntry]
    """In order: those that failed, and the one that succeeded."""


class ResendResult(AnswerModel):
    endpoint: str
    dry_run: bool
    events: int
    streams: int
    pruned: int
    """Events of that time that the log does not have any more, at most."""


class RetryResult(AnswerModel):
    event_id: str
    endpoint: str
    outcome: str
    """``revived``, ``hastened``, ``under way`` or ``in turn``."""


class DeadResult(AnswerModel):
    endpoint: str
    events: int
    """How many were retried, or discarded."""
    more: bool
    """Whether there are more, for which there was no time: ask again."""


class DiscardResult(AnswerModel):
    event_id: str
    endpoint: str


class WebhookReceipt(AnswerModel):
    looks: bool
    """Whether the relay looks at the room because of it."""


def iso(moment: int) -> str:
    """A wall time in epoch milliseconds as ``2026-11-21T10:15:05.482Z``."""
    return rfc3339(instant(moment))


def iso_or_none(moment: int | None) -> str | None:
    return None if moment is None else iso(moment)
