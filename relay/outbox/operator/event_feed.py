"""Follows what is appended to the log. Each query runs on the caller's connection."""

from collections.abc import Collection, Iterator
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
from relay.outbox.schema import events, streams


class EventFeed:
    """Follows what is appended to the selected streams, a bounded number of events at a time."""

    def __init__(self, connection: sa.Connection, which: Selection, since: int | None) -> None:
        """``since``: begin with what was appended then or later, in epoch milliseconds; None: with what comes."""
        self._which = which
        self._newest: int = connection.execute(sa.select(sa.func.coalesce(sa.func.max(streams.c.sid), 0))).scalar_one()
        """Streams of higher numbers are new."""
        self._read: dict[int, int] = {}
        """The last sequence that was read, by stream that may grow or has more to read."""
        may_have: sa.ColumnElement[bool] = streams.c.closed_at.is_(None)
        if since is not None:
            may_have |= streams.c.closed_at >= since
        for row in connection.execute(
            sa.select(streams.c.sid, streams.c.last_sequence).where(
                may_have, streams.c.sid <= self._newest, which.streams()
            )
        ).all():
            begin = row.last_sequence
            if since is not None:
                begin = last_before(connection, row.sid, row.last_sequence, Position(since, 0, 0))
            self._read[row.sid] = begin

    def more(
        self, connection: sa.Connection, limit: int, grown: Collection[int] | None = None
    ) -> tuple[list[tuple[Position, EventView]], bool]:
        """The next events, in order within each stream, and whether there may be more at once.

        ``grown``: the numbers of the streams to look at; None for all.
        """
        found: list[tuple[Position, EventView]] = []
        size = seen = 0
        for stream in self._streams(connection, grown):
            after = self._read.get(stream.sid, 0)
            is_new = stream.sid > self._newest
            if grown is None:
                self._newest, is_new = max(self._newest, stream.sid), False
            if self._which.stream(stream.room, stream.participant):
                while after < stream.last_sequence and seen < limit and size < BYTES:
                    rows = connection.execute(
                        sa.select(events)
                        .where(events.c.sid == stream.sid, events.c.sequence.between(after + 1, stream.last_sequence))
                        .order_by(events.c.sequence)
                        .limit(min(CHUNK, limit - seen))
                    ).all()
                    for row in rows:
                        if row.body and self._which.wants(row.type):
                            found.append(
                                (Position(row.emitted_at, stream.sid, row.sequence), EventView.of(stream, row))
                            )
                            size += len(row.body)
                    seen += len(rows)
                    after = rows[-1].sequence if rows else stream.last_sequence
            else:
                after = stream.last_sequence
            if stream.closed_at is None or after < stream.last_sequence or is_new:
                # a new stream that was looked at by itself is found again among all
                self._read[stream.sid] = after
            else:
                self._read.pop(stream.sid, None)
        return found, seen >= limit or size >= BYTES

    def _streams(self, connection: sa.Connection, grown: Collection[int] | None) -> Iterator[Any]:
        every = sa.select(*STREAM, streams.c.last_sequence, streams.c.closed_at).where(self._which.streams())
        newest = self._newest
        if grown is not None:
            followed = [sid for sid in grown if sid > newest or sid in self._read]
            if followed:
                yield from connection.execute(every.where(streams.c.sid.in_(followed)).order_by(streams.c.sid)).all()
            return
        known = [sid for sid in self._read if sid <= newest]
        starts = range(0, len(known), STREAMS_AT_ONCE)
        pages = [streams.c.sid.in_(known[start : start + STREAMS_AT_ONCE]) for start in starts]
        for page in (*pages, streams.c.sid > newest):
            yield from connection.execute(every.where(page).order_by(streams.c.sid)).all()
