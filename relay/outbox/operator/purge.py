"""Purges a participant's or a room's data from the log at once, even if undelivered.

Every step is a transaction of a few hundred rows, so that appends can run in between; an interrupted purge is completed
by the next one. For each stream:

- Its lanes move to its end under a new fence: a dispatcher with some of it in memory can send at most what it has
  already started, one event per lane. Parked and dead events are deleted.
- If the stream has ended, its events and their attempts are deleted. Its row stays without a name until the retention
  is over, so that no process that still knows the stream by its number takes another one for it.
- If the stream is open, its events lose their bodies and keep their rows, because the numbering has no gaps. Its writer
  continues: what it appends afterwards takes another purge, once the stream has ended.

A participant is also named in the overlaps of their rooms: those events lose their bodies. At the end the deleted bytes
are overwritten wherever copies of them remain.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from relay.clock import Clock
from relay.outbox.database import Database
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.reader import Reader
from relay.outbox.schema import answers, attempts, dead_letters, events, lanes, parked, resends, streams

STEP = 300
"""Rows per transaction."""

T = TypeVar("T")


@dataclass(slots=True)
class Purged:
    """The result of a purge."""

    streams: int = 0
    """Streams that had ended."""
    open_streams: int = 0
    """Streams that continue: what is appended to them after this is not purged."""
    events: int = 0
    """Events of those streams."""
    overlaps: int = 0
    """Events of a room's own stream that named the participant."""
    set_aside: int = 0
    """Parked and dead deliveries."""
    attempts: int = 0
    """Records of attempts."""
    overwritten: bool = True
    """False if copies of the bytes may remain: the log is large and was not rewritten, a reader was active, or the user
    does not own the tables."""

    @property
    def found(self) -> bool:
        """Whether the log held anything of this name."""
        return bool(self.streams or self.open_streams or self.overlaps)


@dataclass(frozen=True, slots=True)
class _PurgedStream:
    sid: int
    room_sid: str
    closed: bool
    upto: int
    """Its last event when its lanes were moved."""
    set_aside: int
    """The parked and dead deliveries that it had."""


class Purge:
    """Removes data from the log. Every method raises ``OutboxError`` if the log cannot be written."""

    def __init__(self, commit: GroupCommit, reader: Reader, database: Database, clock: Clock) -> None:
        self._commit, self._reader, self._database, self._clock = commit, reader, database, clock

    async def participant(self, identity: str, *, rewrite: bool = False) -> Purged:
        """Remove what this participant said, in every room. ``rewrite``: also rewrite the files, however large."""
        found = await self._reader.query(partial(_streams, which=(streams.c.participant == identity)))
        fenced = [await self._fence(sid) for sid in found]
        # In every room: a room that was purged before no longer shows who had been there.
        of_rooms = (streams.c.track_sid == "") & (streams.c.room_sid != "")
        own = await self._reader.query(partial(_streams, which=of_rooms))
        overlaps = {sid: await self._reader.query(partial(_naming, sid=sid, identity=identity)) for sid in own}
        for sid, sequences in overlaps.items():
            for some in _steps(sequences):
                await self._commit.call(partial(_empty_held, sid=sid, sequences=some, now=self._clock.now_ms()))
        purged = await self._purge(fenced, rewrite=rewrite)
        purged.overlaps = sum(map(len, overlaps.values()))
        return purged

    async def room(self, name: str, *, rewrite: bool = False) -> Purged:
        """Remove what was heard in rooms of this name, and their own events. ``rewrite`` as above."""
        found = await self._reader.query(partial(_streams, which=(streams.c.room == name)))
        return await self._purge([await self._fence(sid) for sid in found], rewrite=rewrite)

    async def _purge(self, found: Sequence[_PurgedStream], *, rewrite: bool) -> Purged:
        purged = Purged(set_aside=sum(stream.set_aside for stream in found))
        for stream in found:
            present = await self._reader.query(partial(_present, stream=stream))
            step = _delete if stream.closed else _empty
            for some in _steps(present):
                await self._commit.call(partial(step, sid=stream.sid, sequences=some))
            purged.events += len(present)
        closed = [stream.sid for stream in found if stream.closed]
        purged.streams, purged.open_streams = len(closed), len(found) - len(closed)
        for some in _steps(closed):
            tried = await self._reader.query(partial(_attempts, sids=some))
            for numbers in _steps(tried):
                await self._commit.call(partial(_forget_attempts, numbers=numbers))
            purged.attempts += len(tried)
        for some in _steps([stream.sid for stream in found]):
            if await self._reader.query(partial(_has_answers, sids=some)):
                await self._commit.call(partial(_forget_answers, sids=some))
        for some in _steps(closed):
            await self._commit.call(partial(_unname, sids=some))
        purged.overwritten = await asyncio.to_thread(partial(self._database.scrub, rewrite=rewrite))
        return purged

    async def _fence(self, sid: int) -> _PurgedStream:
        return await self._commit.call(partial(_move_to_end, sid=sid, now=self._clock.now_ms()))


def _steps(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    return (rows[start : start + STEP] for start in range(0, len(rows), STEP))


def _streams(connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[int]:
    found = sa.select(streams.c.sid).where(which).order_by(streams.c.sid)
    return list(connection.execute(found).scalars())


def _move_to_end(connection: sa.Connection, sid: int, now: int) -> _PurgedStream:
    stream = connection.execute(
        sa.select(streams.c.room_sid, streams.c.last_sequence, streams.c.closed_at).where(streams.c.sid == sid)
    ).one()
    # Due at once if more may come, so that the dispatcher holding the lane learns that it has lost it.
    next_at = now if stream.closed_at is None else None
    moved = sa.update(lanes).where(lanes.c.sid == sid).values(cursor=stream.last_sequence, attempts=0, settled_at=now)
    connection.execute(moved.values(fence=lanes.c.fence + 1, owner=None, next_at=next_at))
    of_stream = sa.select(lanes.c.lane).where(lanes.c.sid == sid)
    connection.execute(sa.delete(resends).where(resends.c.lane.in_(of_stream)))
    gone = [sa.delete(table).where(table.c.lane.in_(of_stream)) for table in (parked, dead_letters)]
    set_aside = sum(connection.execute(each).rowcount for each in gone)
    return _PurgedStream(sid, stream.room_sid, stream.closed_at is not None, stream.last_sequence, set_aside)


def _empty_held(connection: sa.Connection, sid: int, sequences: Sequence[int], now: int) -> None:
    """Empty events that a dispatcher may have read, and take the stream's lanes and resends from it.

    At once: they would not be found again if the purge was interrupted in between.
    """
    _empty(connection, sid, sequences)
    of_stream = sa.select(lanes.c.lane).where(lanes.c.sid == sid)
    for table in (lanes, resends):
        held = sa.update(table).where(table.c.lane.in_(of_stream), table.c.owner.is_not(None))
        connection.execute(held.values(fence=table.c.fence + 1, owner=None, next_at=now))


def _present(connection: sa.Connection, stream: _PurgedStream) -> list[int]:
    """The sequences to remove."""
    there = sa.select(events.c.sequence).where(events.c.sid == stream.sid, events.c.sequence <= stream.upto)
    if not stream.closed:
        there = there.where(sa.func.length(events.c.body) > 0)
    return list(connection.execute(there.order_by(events.c.sequence)).scalars())


def _delete(connection: sa.Connection, sid: int, sequences: Sequence[int]) -> None:
    connection.execute(sa.delete(events).where(events.c.sid == sid, events.c.sequence.in_(sequences)))


def _empty(connection: sa.Connection, sid: int, sequences: Sequence[int]) -> None:
    these = sa.update(events).where(events.c.sid == sid, events.c.sequence.in_(sequences))
    connection.execute(these.values(body=b"", expires_at=0))  # never sent, and never retried
    of_stream = sa.select(lanes.c.lane).where(lanes.c.sid == sid)
    for table in (parked, dead_letters, answers):  # an answer may repeat what was sent
        connection.execute(sa.delete(table).where(table.c.lane.in_(of_stream), table.c.sequence.in_(sequences)))


def _naming(connection: sa.Connection, sid: int, identity: str) -> list[int]:
    """The sequences of a room's own events that name the participant."""
    kept = (events.c.sid == sid) & (sa.func.length(events.c.body) > 0)
    rows = connection.execute(sa.select(events.c.sequence, events.c.body).where(kept).order_by(events.c.sequence))
    return [sequence for sequence, body in rows if _names(json.loads(body), identity)]


def _names(value: Any, identity: str) -> bool:
    """Whether the identity occurs anywhere in an event."""
    if isinstance(value, dict):
        return value.get("identity") == identity or any(_names(each, identity) for each in value.values())
    return isinstance(value, list) and any(_names(each, identity) for each in value)


def _attempts(connection: sa.Connection, sids: Sequence[int]) -> list[int]:
    """The numbers of these streams' attempts: this reads all attempts in the log, but writes nothing."""
    of_streams = sa.select(attempts.c.n).join(lanes, lanes.c.lane == attempts.c.lane).where(lanes.c.sid.in_(sids))
    return list(connection.execute(of_streams).scalars())


def _forget_attempts(connection: sa.Connection, numbers: Sequence[int]) -> None:
    connection.execute(sa.delete(attempts).where(attempts.c.n.in_(numbers)))


def _has_answers(connection: sa.Connection, sids: Sequence[int]) -> bool:
    """Whether what receivers have answered is kept of these streams: it may repeat what they were sent."""
    return bool(connection.execute(sa.select(sa.exists().where(_of_streams(sids)))).scalar_one())


def _forget_answers(connection: sa.Connection, sids: Sequence[int]) -> None:
    connection.execute(sa.delete(answers).where(_of_streams(sids)))


def _of_streams(sids: Sequence[int]) -> sa.ColumnElement[bool]:
    return answers.c.lane.in_(sa.select(lanes.c.lane).where(lanes.c.sid.in_(sids)))


def _unname(connection: sa.Connection, sids: Sequence[int]) -> None:
    these = sa.update(streams).where(streams.c.sid.in_(sids))
    connection.execute(these.values(room_sid="", room="", track_sid="", participant=""))
