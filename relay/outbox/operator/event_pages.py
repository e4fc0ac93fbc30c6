"""Pages of events, for readers that come back for the next one. Each query runs on the caller's connection.

Every call reads a bounded number of events, whatever is asked for: a page may have fewer events than its limit, or
none, and still be followed by another.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Any, NamedTuple

import sqlalchemy as sa
from ulid import ULID

from relay.outbox.log.streams import first_emitted_at
from relay.outbox.operator.delivery_queries import stream_deliveries
from relay.outbox.operator.views import EventView, UtteranceView
from relay.outbox.schema import events, lanes, streams

SCANNED = 20_000
"""Events that one call looks at."""
BYTES = 8 << 20
"""Bytes of the events of a page, unless its first one has more."""
CHUNK = 64
STREAMS_AT_ONCE = 500

STREAM = (streams.c.sid, streams.c.id.label("stream_id"), streams.c.room, streams.c.participant)


class Position(NamedTuple):
    """The place of an event in the order of times."""

    at: int
    """When it was appended, in epoch milliseconds."""
    sid: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that a reader asks for and may see."""

    stream: Callable[[str, str], bool]
    """By the room's name and the participant's identity."""
    types: Collection[str] | None = None
    """None: all."""
    endpoint: str | None = None
    """Only streams that this endpoint receives."""
    room: str | None = None
    room_sid: str | None = None
    """With it and the one before: only this room's."""

    def wants(self, event_type: str) -> bool:
        return self.types is None or event_type in self.types

    def streams(self) -> sa.ColumnElement[bool]:
        """What the database can decide of it."""
        parts: list[sa.ColumnElement[bool]] = [sa.true()]
        if self.endpoint is not None:
            parts.append(sa.exists().where(lanes.c.sid == streams.c.sid, lanes.c.endpoint == self.endpoint))
        if self.room is not None:
            parts.append(streams.c.room == self.room)
        if self.room_sid is not None:
            parts.append(streams.c.room_sid == self.room_sid)
        return sa.and_(*parts)


@dataclass(frozen=True, slots=True)
class EventPage:
    events: Sequence[EventView]
    next: Position | None
    """The position after which the next page begins; None on the last."""


@dataclass(frozen=True, slots=True)
class StreamPage:
    """A part of one stream."""

    stream_id: str
    room: str
    participant: str
    closed: bool
    first_sequence: int | None
    """The first event that the log still has; None if it has none."""
    last_sequence: int
    events: Sequence[EventView]
    next: int | None
    """The ``after`` of the next page; None if the log has no more events of the stream yet."""


def stream_page(
    connection: sa.Connection, stream_id: str, which: Selection, *, after: int, limit: int
) -> StreamPage | None:
    """The stream's events after a sequence that still have bodies, in order; None if there is no such stream to see."""
    found = connection.execute(
        sa.select(*STREAM, streams.c.last_sequence, streams.c.closed_at).where(
            streams.c.id == stream_id, which.streams()
        )
    ).first()
    if found is None or not which.stream(found.room, found.participant):
        return None
    first = connection.execute(
        sa.select(sa.func.min(events.c.sequence)).where(events.c.sid == found.sid)
    ).scalar_one_or_none()
    taken: list[EventView] = []
    size, seen, position = 0, 0, after
    while position < found.last_sequence and len(taken) < limit and seen < SCANNED and size < BYTES:
        chunk = connection.execute(
            sa.select(events)
            .where(events.c.sid == found.sid, events.c.sequence > position)
            .order_by(events.c.sequence)
            .limit(min(CHUNK, limit))
        ).all()
        if not chunk:
            position = found.last_sequence
        for row in chunk:
            seen, position = seen + 1, row.sequence
            if row.body and which.wants(row.type):
                taken.append(EventView.of(found, row))
                size += len(row.body)
            if len(taken) >= limit or size >= BYTES:
                break
    return StreamPage(
        stream_id=stream_id,
        room=found.room,
        participant=found.participant,
        closed=found.closed_at is not None,
        first_sequence=first,
        last_sequence=found.last_sequence,
        events=taken,
        next=position if position < found.last_sequence else None,
    )


def events_before(
    connection: sa.Connection, which: Selection, *, before: Position | None, since: int, limit: int
) -> EventPage:
    """At most ``limit`` events appended at ``since`` or later and before a position, newest first.

    The streams are merged by the times of their events, which ascend within a stream. No index covers all streams by
    time; the newest event of each is found at once.
    """
    may_have: sa.ColumnElement[bool] = events.c.emitted_at >= since
    if before is not None:
        may_have &= first_emitted_at() <= before.at
    heads = connection.execute(
        sa.select(*STREAM, streams.c.last_sequence, events.c.emitted_at.label("newest"))
        .join(events, (events.c.sid == streams.c.sid) & (events.c.sequence == streams.c.last_sequence))
        .where(may_have, which.streams())
        .order_by(sa.desc("newest"), streams.c.sid.desc())
    )
    asked = (head for head in heads if which.stream(head.room, head.participant))
    merged = _Merge(connection, asked, before)
    wanted: list[tuple[Any, Position]] = []
    last: Position | None = None
    for seen, (stream, position, event_type) in enumerate(merged, start=1):
        if position.at < since:
            break
        if which.wants(event_type):
            wanted.append((stream, position))
        if len(wanted) == limit or seen == SCANNED:
            last = position
            break
    found, full_at = _with_bodies(connection, wanted)
    return EventPage(found, full_at or last)


class _Merge:
    """The events of several streams, newest first."""

    def __init__(self, connection: sa.Connection, heads: Iterator[Any], before: Position | None) -> None:
        self._connection, self._heads, self._before = connection, heads, before

    def __iter__(self) -> Iterator[tuple[Any, Position, str]]:
        queue: list[tuple[int, int, int, str, Any, Iterator[Any]]] = []
        coming = next(self._heads, None)
        while queue or coming is not None:
            while coming is not None and (not queue or coming.newest >= -queue[0][0]):
                if entry := self._entry(coming, self._backwards(coming)):
                    queue.append(entry)
                    heapify(queue)
                coming = next(self._heads, None)
            if not queue:
                continue
            at, sid, sequence, event_type, stream, rest = queue[0]
            yield stream, Position(-at, -sid, -sequence), event_type
            if entry := self._entry(stream, rest):
                heapreplace(queue, entry)
            else:
                heappop(queue)

    def _entry(self, stream: Any, rest: Iterator[Any]) -> tuple[int, int, int, str, Any, Iterator[Any]] | None:
        row = next(rest, None)
        return None if row is None else (-row.emitted_at, -stream.sid, -row.sequence, row.type, stream, rest)

    def _backwards(self, stream: Any) -> Iterator[Any]:
        upto = stream.last_sequence
        if self._before is not None:
            upto = last_before(self._connection, stream.sid, stream.last_sequence, self._before)
        while upto > 0:
            rows = self._connection.execute(
                sa.select(events.c.sequence, events.c.type, events.c.emitted_at)
                .where(events.c.sid == stream.sid, events.c.sequence <= upto)
                .order_by(events.c.sequence.desc())
                .limit(CHUNK)
            ).all()
            yield from rows
            upto = rows[-1].sequence - 1 if rows else 0


def last_before(connection: sa.Connection, sid: int, last_sequence: int, position: Position) -> int:
    """The sequence of the stream's last event before a position, 0 if none, by binary search: times ascend."""
    low, high = 0, last_sequence
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(
            sa.select(events.c.sequence, events.c.emitted_at)
            .where(events.c.sid == sid, events.c.sequence >= middle)
            .order_by(events.c.sequence)
            .limit(1)
        ).first()
        if row is not None and (row.emitted_at, sid, row.sequence) < position:
            low = row.sequence
        else:
            high = middle - 1
    return low


def _with_bodies(
    connection: sa.Connection, wanted: Sequence[tuple[Any, Position]]
) -> tuple[list[EventView], Position | None]:
    """The events with their bodies, as many as a page may have, and the position of the last if others are left."""
    found: list[EventView] = []
    size = 0
    for count, (stream, position) in enumerate(wanted, start=1):
        row = connection.execute(
            sa.select(events).where(events.c.sid == position.sid, events.c.sequence == position.sequence)
        ).first()
        if row is not None:  # in SQLite it may have been pruned since it was found
            found.append(EventView.of(stream, row))
            size += len(row.body)
        if size >= BYTES and count < len(wanted):
            return found, position
    return found, None


_SEARCHED = 20_000
"""Events of the stream that are searched for those of the utterance."""
_MOST = 200
_EARLIER_MS = 3_600_000
"""How long before the time in its id an utterance may have begun, if the clock was set back since."""


def find_utterance(
    connection: sa.Connection, stream_id: str, utterance: str, which: Selection, *, now: int
) -> UtteranceView | None:
    """The utterance of this id; None if nothing of it may be seen. It has at most its first 200 events."""
    stream = connection.execute(
        sa.select(*STREAM, streams.c.last_sequence).where(streams.c.id == stream_id, which.streams())
    ).first()
    if stream is None or not which.stream(stream.room, stream.participant):
        return None
    # no index finds an utterance; the times in a stream ascend, and the id has that of its beginning
    begin = last_before(connection, stream.sid, stream.last_sequence, Position(_begun_at(utterance), 0, 0))
    rows = connection.execute(
        sa.select(events)
        .where(
            events.c.sid == stream.sid,
            events.c.sequence.between(begin + 1, begin + _SEARCHED),
            events.c.utterance == utterance,
        )
        .order_by(events.c.sequence)
        .limit(_MOST)
    ).all()
    found = [EventView.of(stream, row) for row in rows if which.wants(row.type)]
    if not found:
        return None
    of_stream, tried = stream_deliveries(
        connection,
        stream.sid,
        (found[0].sequence, found[-1].sequence),
        endpoint=which.endpoint,
        since=found[0].emitted_at,
        now=now,
    )
    ids = {event.id for event in found}
    return UtteranceView(
        stream_id=stream.stream_id,
        room=stream.room,
        participant=stream.participant,
        events=tuple(found),
        deliveries=tuple(each for each in of_stream if each.event_id in ids),
        attempts=tuple(each for each in tried if each.event_id in ids),
    )


def _begun_at(utterance: str) -> int:
    with suppress(ValueError):
        return max(0, int(ULID.from_str(utterance.removeprefix("utt_")).timestamp * 1000) - _EARLIER_MS)
    return 0
