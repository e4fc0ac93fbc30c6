"""Queries about events. Each runs on the caller's connection."""

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from heapq import nlargest
from typing import Any

import sqlalchemy as sa

from relay.ids import event_id
from relay.outbox.operator.views import EventView
from relay.outbox.schema import events, streams

_PAGE = 500
_MOST_DIGITS = 18
"""Of a number that fits a column."""

_STREAM = (streams.c.id.label("stream_id"), streams.c.room, streams.c.participant)
_EVENT = (events.c.sequence, events.c.id, events.c.type, events.c.emitted_at, events.c.body)


class EventFilter:
    """A filter for events: globs over room names and participant identities, and full type names."""

    def __init__(self, room: str = "*", participant: str = "*", types: Collection[str] | None = None) -> None:
        self._room, self._participant, self._types = room, participant, types

    def stream(self, room: str, participant: str) -> bool:
        return fnmatchcase(room, self._room) and fnmatchcase(participant, self._participant)

    def types(self) -> sa.ColumnElement[bool]:
        return sa.true() if self._types is None else events.c.type.in_(self._types)


def newest_events(connection: sa.Connection, which: EventFilter, since: int, limit: int) -> list[EventView]:
    """At most ``limit`` events appended at ``since`` or later, newest first.

    No index covers all streams by time. The newest event of each stream is found at once, however, so the streams are
    read in that order, in growing groups, until no remaining stream can have a newer event.
    """
    heads = connection.execute(
        sa.select(streams.c.sid, *_STREAM, events.c.emitted_at)
        .join(events, (events.c.sid == streams.c.sid) & (events.c.sequence == streams.c.last_sequence))
        .where(events.c.emitted_at >= since)
        .order_by(events.c.emitted_at.desc())
    )
    asked = [head for head in heads if which.stream(head.room, head.participant)]
    found: list[EventView] = []
    start, count = 0, 1
    while start < len(asked) and (len(found) < limit or asked[start].emitted_at > found[-1].emitted_at):
        together = {head.sid: head for head in asked[start : start + count]}
        newest = (
            sa.select(events.c.sid, *_EVENT)
            .where(events.c.sid.in_(together), events.c.emitted_at >= since, which.types())
            .order_by(events.c.emitted_at.desc(), events.c.sequence.desc())
            .limit(limit)
        )
        of_these = [EventView.of(together[row.sid], row) for row in connection.execute(newest)]
        found = nlargest(limit, found + of_these, key=lambda view: (view.emitted_at, view.sequence))
        start, count = start + count, min(2 * count, _PAGE)
    return found


def find_event(connection: sa.Connection, wanted: str) -> tuple[int, EventView] | None:
    """The log's number of the event's stream, and the event; None if the log does not have it."""
    ulid, _, sequence = wanted.removeprefix("evt_").rpartition("_")
    stream_id = f"str_{ulid}"
    if not sequence.isdecimal() or len(sequence) > _MOST_DIGITS or event_id(stream_id, int(sequence)) != wanted:
        return None
    row = connection.execute(
        sa.select(streams.c.sid, *_STREAM, *_EVENT)
        .join(events, events.c.sid == streams.c.sid)
        .where(streams.c.id == stream_id, events.c.sequence == int(sequence))
    ).first()
    return (row.sid, EventView.of(row, row)) if row else None


class EventTail:
    """Follows what is appended from now on. Reads only streams that are open, were open, or are new."""

    def __init__(self, connection: sa.Connection, which: EventFilter) -> None:
        self._which = which
        self._newest: int = connection.execute(sa.select(sa.func.coalesce(sa.func.max(streams.c.sid), 0))).scalar_one()
        is_open = sa.select(streams.c.sid, streams.c.last_sequence).where(streams.c.closed_at.is_(None))
        self._read = {row.sid: row.last_sequence for row in connection.execute(is_open)}
        """The last sequence that was read, per stream that was open then."""

    def more(self, connection: sa.Connection) -> list[EventView]:
        """The events since the last call, in order within each stream."""
        found: list[EventView] = []
        still_open: dict[int, int] = {}
        for stream in self._streams(connection):
            after = self._read.get(stream.sid, 0)
            if stream.last_sequence > after and self._which.stream(stream.room, stream.participant):
                found += self._events(connection, stream, after)
            if stream.closed_at is None:
                still_open[stream.sid] = stream.last_sequence
            self._newest = max(self._newest, stream.sid)
        self._read = still_open
        return found

    def _streams(self, connection: sa.Connection) -> Iterator[Any]:
        every = sa.select(streams.c.sid, streams.c.last_sequence, streams.c.closed_at, *_STREAM)
        known = list(self._read)
        pages = [streams.c.sid.in_(known[start : start + _PAGE]) for start in range(0, len(known), _PAGE)]
        for page in (*pages, streams.c.sid > self._newest):
            yield from connection.execute(every.where(page).order_by(streams.c.sid)).all()

    def _events(self, connection: sa.Connection, stream: Any, after: int) -> list[EventView]:
        behind = (events.c.sid == stream.sid) & events.c.sequence.between(after + 1, stream.last_sequence)
        rows = connection.execute(sa.select(*_EVENT).where(behind, self._which.types()).order_by(events.c.sequence))
        return [EventView.of(stream, row) for row in rows]
