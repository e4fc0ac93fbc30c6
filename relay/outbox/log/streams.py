"""Statements about streams and their writers. Each runs in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relay.errors import Fenced, OutboxError, StreamTaken
from relay.events.envelope import Delivery
from relay.outbox.log.audience import open_lanes_for_audience
from relay.outbox.records import OVERDUE_MS, NewStream, Record, StreamShare
from relay.outbox.schema import endpoints, events, lanes, streams, writers


@dataclass(frozen=True, slots=True)
class Held:
    """A stream that a writer may append to."""

    stream: int
    id: str
    fence: int
    last_sequence: int


def open_stream(
    connection: sa.Connection, new: NewStream, writer: str, now: int, *, about: str | None = None, again: bool = False
) -> Held:
    """Open a stream and its lanes: to every endpoint of the configuration, and to those made over the API that it
    concerns. Raises ``StreamTaken`` if its track is already open.

    ``about`` is for the relay's own streams: the endpoint that gets no lane. ``again``: an earlier attempt seemed to
    fail, but its commit may have succeeded.
    """
    if again:
        mine = (streams.c.id == new.id) & (streams.c.writer == writer) & streams.c.closed_at.is_(None)
        opened_before = connection.execute(sa.select(streams.c.sid, streams.c.writer_fence).where(mine)).first()
        if opened_before is not None:
            return Held(opened_before.sid, new.id, opened_before.writer_fence, 0)
    try:
        opened = connection.execute(
            sa.insert(streams).values(
                id=new.id,
                room_sid=new.room_sid,
                room=new.room,
                track_sid=new.track_sid,
                participant=new.participant,
                last_sequence=0,
                writer=writer,
                # Grows when it is taken over, and fits no other stream of its number: a standby that takes over may
                # give the numbers again that the primary gave last.
                writer_fence=now,
                opened_at=now,
                about=about,
            )
        )
    except sa.exc.IntegrityError as error:
        raise StreamTaken(
            f"track {new.track_sid} in room {new.room_sid} has an open stream: another writer listens to it"
        ) from error
    key = opened.inserted_primary_key
    assert key is not None  # noqa: S101 - one row was inserted
    open_lanes(connection, streams.c.sid == key.sid, now)
    open_lanes_for_audience(connection, key.sid, new.room, new.participant, now, about=about)
    return Held(key.sid, new.id, now, 0)


def open_lanes(connection: sa.Connection, which: sa.ColumnElement[bool], now: int) -> None:
    """Open the missing lanes between the configuration's endpoints and the open streams ``which``, starting now."""
    missing = (
        sa.select(
            endpoints.c.name,
            streams.c.sid,
            streams.c.last_sequence,
            sa.literal(0),
            sa.literal(0),
            sa.literal(now),  # the first fence, as a stream's
            sa.literal(now),
        )
        .select_from(sa.join(endpoints, streams, sa.true()))
        .where(
            endpoints.c.active,
            ~endpoints.c.by_api,
            which,
            streams.c.closed_at.is_(None),
            streams.c.about.is_distinct_from(endpoints.c.name),
            ~sa.exists().where(lanes.c.sid == streams.c.sid, lanes.c.endpoint == endpoints.c.name),
        )
    )
    columns = ["endpoint", "sid", "cursor", "last_sent", "attempts", "fence", "settled_at"]
    connection.execute(sa.insert(lanes).from_select(columns, missing))


def served(endpoint: str) -> sa.ColumnElement[bool]:
    """Whether an endpoint is sent to: it is configured, or made over the API, and not disabled."""
    return sa.exists().where(endpoints.c.name == endpoint, endpoints.c.active, endpoints.c.disabled_at.is_(None))


def due(table: sa.Table, now: int, share: StreamShare | None) -> sa.ColumnElement[bool]:
    """Whether a lane, a parked event or a resend is due, for a dispatcher with this share of the streams.

    The query has the lane. What another dispatcher should have taken by now is due for all, unless the share is
    ``only`` its own.
    """
    is_due = table.c.next_at <= now
    if share is None:
        return is_due
    own = lanes.c.sid % share.of == share.remainder
    return is_due & own if share.only else is_due & (own | (table.c.next_at <= now - OVERDUE_MS))


def first_emitted_at() -> sa.ScalarSelect[int]:
    """When a stream's first event that the log still has was emitted, within a query of streams; null if it has none.

    That may be before the stream was opened: a room's own stream is opened for events that wait to be appended.
    """
    first = events.alias()
    found = sa.select(first.c.emitted_at).where(first.c.sid == streams.c.sid).order_by(first.c.sequence).limit(1)
    return found.correlate(streams).scalar_subquery()


def renew_writer(connection: sa.Connection, writer: str, name: str, lease_until: int) -> None:
    """Start or renew a writer's lease."""
    renewed = connection.execute(
        sa.update(writers).where(writers.c.writer == writer).values(lease_until=lease_until)
    ).rowcount
    if not renewed:
        connection.execute(sa.insert(writers).values(writer=writer, name=name, lease_until=lease_until))


def forget_writer(connection: sa.Connection, writer: str) -> None:
    """End a writer's lease: its open streams become orphans at once."""
    connection.execute(sa.delete(writers).where(writers.c.writer == writer))


def writers_named(connection: sa.Connection) -> list[str]:
    """Names of the writers whose lease was not ended, expired or not."""
    return list(connection.execute(sa.select(writers.c.name).distinct()).scalars())


def writers_silent(connection: sa.Connection, now: int) -> list[str]:
    """Names of the writers whose lease has expired."""
    silent = sa.func.max(writers.c.lease_until) <= now
    return list(connection.execute(sa.select(writers.c.name).group_by(writers.c.name).having(silent)).scalars())


def last_beats(connection: sa.Connection, lease_ms: int) -> dict[str, int]:
    """When the lease, of this length, of each open stream's writer was last renewed, expired or not.

    A stream that was taken over has none: its writer is not the process that listened.
    """
    held = sa.select(streams.c.id, writers.c.lease_until).join(writers, writers.c.writer == streams.c.writer)
    rows = connection.execute(held.where(streams.c.closed_at.is_(None), streams.c.writer_fence <= streams.c.opened_at))
    return {row.id: row.lease_until - lease_ms for row in rows}


def newest_beats(connection: sa.Connection, lease_ms: int) -> dict[str, int]:
    """When the lease, of this length, of each writer that has one was last renewed, by the writer's name."""
    newest = sa.select(writers.c.name, sa.func.max(writers.c.lease_until).label("until")).group_by(writers.c.name)
    return {row.name: row.until - lease_ms for row in connection.execute(newest)}


def forget_named(connection: sa.Connection, names: Sequence[str]) -> None:
    """End the leases of all writers with these names."""
    connection.execute(sa.delete(writers).where(writers.c.name.in_(names)))


def _orphaned(now: int) -> sa.ColumnElement[bool]:
    alive = sa.exists().where(writers.c.writer == streams.c.writer, writers.c.lease_until > now)
    # The relay's own streams have no writer that could be lost.
    return streams.c.closed_at.is_(None) & streams.c.about.is_(None) & ~alive


def orphans(connection: sa.Connection, now: int) -> list[str]:
    """Ids of the open streams whose writer's lease has expired, oldest first."""
    return list(connection.execute(sa.select(streams.c.id).where(_orphaned(now)).order_by(streams.c.sid)).scalars())


def take_over(connection: sa.Connection, stream_id: str, writer: str, now: int) -> Held:
    """Fence an orphan's former writer.

    Raises ``StreamTaken`` while its writer's lease holds, ``Fenced`` if the stream is closed (nothing is left to take
    over), ``OutboxError`` for an id that the log does not have.
    """
    taken = connection.execute(
        sa.update(streams)
        .where(streams.c.id == stream_id, _orphaned(now))
        .values(writer=writer, writer_fence=streams.c.writer_fence + 1)
    ).rowcount
    found = connection.execute(
        sa.select(streams.c.sid, streams.c.writer_fence, streams.c.last_sequence, streams.c.closed_at).where(
            streams.c.id == stream_id
        )
    ).first()
    if found is None:
        raise OutboxError(f"the log has no stream {stream_id}")
    if found.closed_at is not None:
        raise Fenced(f"stream {stream_id} is closed")
    if not taken:
        raise StreamTaken(f"stream {stream_id} has a writer that is alive")
    return Held(found.sid, stream_id, found.writer_fence, found.last_sequence)


def still_held(connection: sa.Connection, held: Held) -> Held | None:
    """The stream as its writer would hold it now; None if it was taken over, or is gone."""
    found = connection.execute(
        sa.select(streams.c.sid, streams.c.last_sequence).where(
            streams.c.id == held.id, streams.c.writer_fence == held.fence
        )
    ).first()
    return None if found is None else Held(found.sid, held.id, held.fence, found.last_sequence)


def abandon(connection: sa.Connection, held: Held, now: int) -> None:
    """Close a stream in its current state, without a last event.

    Raises ``Fenced`` if it was taken over, closed or has grown since.
    """
    closed = connection.execute(
        sa.update(streams)
        .where(
            streams.c.sid == held.stream,
            streams.c.writer_fence == held.fence,
            streams.c.last_sequence == held.last_sequence,
            streams.c.closed_at.is_(None),
        )
        .values(closed_at=now)
    ).rowcount
    if not closed:
        raise Fenced(f"stream {held.id} was taken over or closed: this process must not close it any more")


def give_up(connection: sa.Connection, stream_id: str, writer: str) -> None:
    """Make an orphan of a stream that this writer still holds."""
    connection.execute(
        sa.update(streams)
        .where(streams.c.id == stream_id, streams.c.writer == writer, streams.c.closed_at.is_(None))
        .values(writer="")
    )


def history(connection: sa.Connection, stream_id: str, types: Sequence[str], after: int, limit: int) -> list[Record]:
    """A stream's events after ``after`` that still have bodies, in order; only of these types, if any."""
    wanted = (
        sa.select(events)
        .join(streams, streams.c.sid == events.c.sid)
        .where(streams.c.id == stream_id, events.c.sequence > after, sa.func.length(events.c.body) > 0)
        .order_by(events.c.sequence)
        .limit(limit)
    )
    if types:
        wanted = wanted.where(events.c.type.in_(types))
    return [record_of(row) for row in connection.execute(wanted)]


def record_of(row: sa.Row[Any]) -> Record:
    """Convert a row with the columns of an event to its record."""
    return Record(
        sequence=row.sequence,
        id=row.id,
        type=row.type,
        delivery=Delivery(row.delivery),
        utterance=row.utterance,
        revision=row.revision,
        emitted_at=row.emitted_at,
        expires_at=row.expires_at,
        body=row.body,
        closes=row.closes,
    )
