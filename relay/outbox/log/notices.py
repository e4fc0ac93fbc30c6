"""Appends the relay's events about itself, in the transaction of the change that they report.

Each endpoint with something to report has a stream, and so has capture. Such a stream has no writer that could be lost,
so it stays open, and it has a lane to every active endpoint but the one it is about.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from relay.clock import instant
from relay.events.envelope import Model
from relay.events.operator import DeliveryDead, DeliveryParked, RelayEvent, RelayStreamRef, UndeliveredData
from relay.ids import event_id, new_id
from relay.outbox.database import Database
from relay.outbox.log.streams import Held, open_stream
from relay.outbox.records import Append, NewStream, record
from relay.outbox.schema import endpoints, events, lanes, streams

CAPTURE = "(capture)"
"""The subject of the capture stream. No endpoint can have this name."""


class Notice(NamedTuple):
    """An event of the relay before it has its place in a stream."""

    kind: type[RelayEvent]
    data: Model


class Undelivered(NamedTuple):
    """A delivery that was parked or given up."""

    kind: type[DeliveryDead] | type[DeliveryParked]
    lane: int
    sequence: int
    attempts: int
    reason: str


def append(
    connection: sa.Connection, database: Database, about: str, notices: Sequence[Notice], now: int
) -> frozenset[int]:
    """Append to the stream about this endpoint, or ``CAPTURE``.

    Returns the log's numbers of the streams that have grown, to ring the doorbell for.

    If no other endpoint exists to receive it, nothing is appended: an endpoint added later begins after it anyway.
    """
    others = sa.exists().where(endpoints.c.active, endpoints.c.name != about)
    if not notices or not connection.execute(sa.select(others)).scalar_one():
        return frozenset()
    held = _stream(connection, about, now)
    last = (events.c.sid == held.stream) & (events.c.sequence == held.last_sequence)
    newest = connection.execute(sa.select(events.c.emitted_at).where(last)).scalar() or 0
    emitted_at = max(now, newest)  # ascends in a stream, also where the clock was set back: pages continue by it
    records = []
    for sequence, notice in enumerate(notices, held.last_sequence + 1):
        around = {
            "timestamp": instant(now),
            "id": event_id(held.id, sequence),
            "stream": RelayStreamRef(id=held.id, sequence=sequence),
        }
        made = record(notice.kind.model_validate({**around, "data": notice.data}))
        records.append(made._replace(emitted_at=emitted_at))
    appended = database.append(connection, [Append(held.stream, held.fence, records)], now)
    assert appended  # noqa: S101 - the stream was found, or opened, in this very transaction
    return frozenset({held.stream})


def tell_undelivered(
    connection: sa.Connection, database: Database, undelivered: Sequence[Undelivered], now: int
) -> frozenset[int]:
    """Report deliveries that were parked or given up; returns the streams that have grown.

    Deliveries of notices are left out: endpoints that are all down would notify each other without end.
    """
    places = _places(connection, undelivered)
    of_endpoint: dict[str, list[Notice]] = defaultdict(list)
    for one in undelivered:
        if place := places.get((one.lane, one.sequence)):
            data = UndeliveredData(
                endpoint=place.endpoint,
                event_id=place.event_id,
                event_type=place.event_type,
                stream_id=place.stream_id,
                sequence=one.sequence,
                attempts=one.attempts,
                reason=one.reason,
            )
            of_endpoint[place.endpoint].append(Notice(one.kind, data))
    grown = (append(connection, database, about, told, now) for about, told in of_endpoint.items())
    return frozenset[int]().union(*grown)


class _DeliveryRef(NamedTuple):
    endpoint: str
    stream_id: str
    event_id: str
    event_type: str


def _places(connection: sa.Connection, undelivered: Sequence[Undelivered]) -> Mapping[tuple[int, int], _DeliveryRef]:
    """The log's data about these deliveries, by lane and sequence; without the relay's own streams."""
    rows = connection.execute(
        sa.select(lanes.c.lane, lanes.c.endpoint, lanes.c.sid, streams.c.id)
        .join(streams, streams.c.sid == lanes.c.sid)
        .where(lanes.c.lane.in_({one.lane for one in undelivered}), streams.c.about.is_(None))
    )
    of_lane = {row.lane: row for row in rows}
    keys = {(of_lane[one.lane].sid, one.sequence) for one in undelivered if one.lane in of_lane}
    found = connection.execute(
        sa.select(events.c.sid, events.c.sequence, events.c.id, events.c.type).where(
            sa.tuple_(events.c.sid, events.c.sequence).in_(sorted(keys))
        )
    )
    there = {(row.sid, row.sequence): row for row in found}
    return {
        (one.lane, one.sequence): _DeliveryRef(lane.endpoint, lane.id, event.id, event.type)
        for one in undelivered
        if (lane := of_lane.get(one.lane)) and (event := there.get((lane.sid, one.sequence)))
    }


def _stream(connection: sa.Connection, about: str, now: int) -> Held:
    found = connection.execute(
        sa.select(streams.c.sid, streams.c.id, streams.c.writer_fence, streams.c.last_sequence)
        .where(streams.c.about == about, streams.c.closed_at.is_(None))
        .with_for_update()
    ).first()
    if found is not None:
        return Held(found.sid, found.id, found.writer_fence, found.last_sequence)
    new = NewStream(id=new_id("str"), room_sid="", room="", track_sid=about, participant="")
    return open_stream(connection, new, "", now, about=about)
