"""Queries about rooms, from the streams in the log. Each runs on the caller's connection.

A room is known by its name. LiveKit gives a room that was closed and opened again another sid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relay.outbox.operator.event_pages import Selection
from relay.outbox.schema import streams

STREAMS = 500
"""Streams of a room in one answer."""


@dataclass(frozen=True, slots=True)
class StreamView:
    id: str
    track_sid: str
    """Empty for the room's own stream."""
    participant: str
    opened_at: int
    closed_at: int | None
    last_sequence: int


@dataclass(frozen=True, slots=True)
class RoomView:
    """A room, and what of it may be seen."""

    name: str
    sid: str
    """Of its newest session."""
    opened_at: int
    """When the first stream of that session was opened."""
    active_at: int
    """When its newest stream was opened."""
    closed_at: int | None
    """When the last one ended; None while one is open."""
    streams: Sequence[StreamView]
    """Of that session, oldest first: the first ``STREAMS``."""
    participants: Sequence[str]


def rooms(
    connection: sa.Connection, which: Selection, *, before: tuple[int, str] | None, limit: int
) -> tuple[list[RoomView], tuple[int, str] | None]:
    """At most ``limit`` rooms, those with the newest streams first, and the ``before`` of the next page."""
    active = sa.func.max(streams.c.opened_at)
    pairs = (
        sa.select(streams.c.room, streams.c.participant, active.label("active"))
        .where(streams.c.room != "", which.streams())
        .group_by(streams.c.room, streams.c.participant)
        .order_by(sa.desc("active"), streams.c.room.desc())
    )
    if before is not None:
        pairs = pairs.having(active <= before[0])
    found: list[RoomView] = []
    looked_at: set[str] = set()
    for row in connection.execute(pairs):
        if row.room in looked_at or not which.stream(row.room, row.participant):
            continue
        looked_at.add(row.room)
        room = find_room(connection, row.room, which)
        if room is None or (before is not None and (room.active_at, room.name) >= before):
            continue  # it was on an earlier page
        if len(found) == limit:
            return found, (found[-1].active_at, found[-1].name)
        found.append(room)
    return found, None


def find_room(connection: sa.Connection, name: str, which: Selection, *, sid: str | None = None) -> RoomView | None:
    """The room of this name, in its newest session or the one of this ``sid``; None if nothing of it may be seen."""
    mine = (streams.c.room == name) & which.streams()
    newest = sa.select(streams).where(mine).order_by(streams.c.opened_at.desc(), streams.c.sid.desc())
    session = sid
    if session is None:
        seen = (row for row in connection.execute(newest) if which.stream(row.room, row.participant))
        newest_row = next(seen, None)
        if newest_row is None:
            return None
        session = newest_row.room_sid
    of_session = sa.select(streams).where(mine, streams.c.room_sid == session).order_by(streams.c.sid)
    rows: list[sa.Row[Any]] = [row for row in connection.execute(of_session) if which.stream(row.room, row.participant)]
    if not rows:
        return None
    ends = [row.closed_at for row in rows]
    return RoomView(
        name=name,
        sid=session,
        opened_at=min(row.opened_at for row in rows),
        active_at=max(row.opened_at for row in rows),
        closed_at=None if None in ends else max(ends),
        streams=[_stream(row) for row in rows[:STREAMS]],
        participants=sorted({row.participant for row in rows if row.participant}),
    )


def _stream(row: sa.Row[Any]) -> StreamView:
    return StreamView(
        id=row.id,
        track_sid=row.track_sid,
        participant=row.participant,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        last_sequence=row.last_sequence,
    )
