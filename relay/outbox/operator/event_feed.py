"""Follows what is appended to the log. Each query runs on the caller's connection."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relay.outbox.operator.event_pages import (
    BYTES,
    CHUNK,
    STREAM,
    STREAMS_AT_ONCE,
    Position,
    Selection,
    last_before,
)
from relay.outbox.operator.views import EventView
from relay.outbox.records import Record
from relay.outbox.schema import events, streams

Found = list[tuple[Position, EventView]]


@dataclass(slots=True)
class _Followed:
    """A stream that may grow, or has more to read."""

    stream: Any
    """Its row."""
    is_wanted: bool
    after: int
    """The last sequence that was read."""


class EventFeed:
    """Follows what is appended to the selected streams, a bounded number of events at a time."""

    def __init__(self, connection: sa.Connection, which: Selection, since: int | None) -> None:
        """``since``: begin with what was appended then or later, in epoch milliseconds; None: with what comes."""
        self._which = which
        self._newest: int = connection.execute(sa.select(sa.func.coalesce(sa.func.max(streams.c.sid), 0))).scalar_one()
        """Streams of higher numbers are new."""
        self._followed: dict[int, _Followed] = {}
        may_have: sa.ColumnElement[bool] = streams.c.closed_at.is_(None)
        if since is not None:
            may_have |= streams.c.closed_at >= since
        for row in connection.execute(
            self._every().where(may_have, streams.c.sid <= self._newest)  # those that follow are found as new ones
        ).all():
            begin = row.last_sequence
            if since is not None:
                begin = last_before(connection, row.sid, row.last_sequence, Position(since, 0, 0))
            self._followed[row.sid] = self._follow(row, begin)

    def select(self, which: Selection) -> None:
        """Follow these events from now on: the selection's rooms, participants and types may be others than before."""
        self._which = which
        for known in self._followed.values():
            known.is_wanted = which.stream(known.stream.room, known.stream.participant)

    def shows(self, view: EventView) -> bool:
        """Whether the selection, as it is now, has an event that was found with an earlier one."""
        return self._which.wants(view.type) and self._which.stream(view.room, view.participant)

    def take(self, growth: Mapping[int, Sequence[Record] | None]) -> tuple[Found, set[int]]:
        """What follows on what was read, and the numbers of the streams that must be read for the rest.

        ``growth``: new records of each stream, in order; None if they are not known. No query is needed: a query holds
        up everything else in a busy process.
        """
        found: Found = []
        unread: set[int] = set()
        for sid, records in growth.items():
            known = self._followed.get(sid)
            if known is None:
                if sid > self._newest:
                    unread.add(sid)
                continue
            if not known.is_wanted:
                continue
            if records is None:
                unread.add(sid)
                continue
            for record in records:
                if record.sequence <= known.after:
                    continue
                if record.sequence > known.after + 1:
                    unread.add(sid)
                    break
                known.after = record.sequence
                if event := self._event(known.stream, record):
                    found.append(event)
                if record.closes and sid <= self._newest:
                    del self._followed[sid]
        return found, unread

    def read(self, connection: sa.Connection, limit: int, grown: Collection[int] | None = None) -> tuple[Found, bool]:
        """The next events, in order within each stream, and whether there may be more at once.

        ``grown``: the numbers of the streams to look at; None for all.
        """
        found: Found = []
        size = seen = 0
        for stream in self._streams(connection, grown):
            known = self._followed.get(stream.sid) or self._follow(stream, 0)
            is_new = stream.sid > self._newest
            if grown is None:
                self._newest, is_new = max(self._newest, stream.sid), False
            if known.is_wanted:
                while known.after < stream.last_sequence and seen < limit and size < BYTES:
                    rows = connection.execute(
                        sa.select(events)
                        .where(
                            events.c.sid == stream.sid, events.c.sequence.between(known.after + 1, stream.last_sequence)
                        )
                        .order_by(events.c.sequence)
                        .limit(min(CHUNK, limit - seen))
                    ).all()
                    for row in rows:
                        if event := self._event(stream, row):
                            found.append(event)
                            size += len(row.body)
                    seen += len(rows)
                    known.after = rows[-1].sequence if rows else stream.last_sequence
            else:
                known.after = stream.last_sequence
            if stream.closed_at is None or known.after < stream.last_sequence or is_new:
                # a new stream that was looked at by itself is found again among all
                self._followed[stream.sid] = known
            else:
                self._followed.pop(stream.sid, None)
        return found, seen >= limit or size >= BYTES

    def _every(self) -> sa.Select[Any]:
        return sa.select(*STREAM, streams.c.last_sequence, streams.c.closed_at).where(self._which.streams())

    def _follow(self, row: Any, after: int) -> _Followed:
        return _Followed(row, self._which.stream(row.room, row.participant), after)

    def _event(self, stream: Any, event: Any) -> tuple[Position, EventView] | None:
        """None if it is not asked for, or its content is gone."""
        if not event.body or not self._which.wants(event.type):
            return None
        return Position(event.emitted_at, stream.sid, event.sequence), EventView.of(stream, event)

    def _streams(self, connection: sa.Connection, grown: Collection[int] | None) -> Iterator[Any]:
        every, newest = self._every(), self._newest
        if grown is not None:
            followed = [sid for sid in grown if sid > newest or sid in self._followed]
            if followed:
                yield from connection.execute(every.where(streams.c.sid.in_(followed)).order_by(streams.c.sid)).all()
            return
        known = [sid for sid in self._followed if sid <= newest]
        starts = range(0, len(known), STREAMS_AT_ONCE)
        pages = [streams.c.sid.in_(known[start : start + STREAMS_AT_ONCE]) for start in starts]
        for page in (*pages, streams.c.sid > newest):
            yield from connection.execute(every.where(page).order_by(streams.c.sid)).all()
