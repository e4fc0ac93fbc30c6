"""Retention: prunes events that are old enough and settled for every endpoint, and nothing else.

Three kinds of data are removed, in small steps, each followed by an equally long pause, so that appends can run in
between. In PostgreSQL they run beside the transactions of other processes: no append, settlement or claim changes what
may be removed, and whatever does, such as adding an endpoint or a resend, runs alone.

- *Interims* lose their bodies a minute after they expire, read or not: no dispatcher sends one that old. The row stays,
  because sequences have no gaps; it is a twentieth of its former size, and interims are most of a log.
- *Events* of an open stream are removed once they are older than the retention and settled by every active endpoint: at
  or before its cursor, and not parked. Dead letters are removed with their events. A closed stream is removed as a
  whole, with its lanes, when that holds for all of its events and the last of them was settled that long ago. A
  disabled endpoint holds back the events it has not received until it is enabled; a resend does the same for what it
  has not sent. An endpoint that is not active holds nothing back, nor does a disabled one that was made over the API,
  whose owner may never return: if it does, its lanes continue after the removed events, ``last_sent`` shows that to the
  receiver, and its parked events are dropped.
- *Attempts*, and answers kept with them, are removed by their age. Those that were dated by a clock that was ahead go
  with what was made after them.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import sqlalchemy as sa

from relay.clock import Clock
from relay.errors import OutboxError
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.reader import Reader
from relay.outbox.schema import (
    answers,
    attempts,
    dead_letters,
    endpoints,
    events,
    lanes,
    parked,
    resends,
    streams,
    writers,
)

STEP = 100
"""Maximum rows per transaction, where it holds up every append: some 3 ms."""
STEP_BESIDE = 1000
"""The same where it holds up those of its own process only: some 10 ms."""
_LOOK = 500
"""Streams examined in one query, which blocks no writer."""
EVERY = 60.0
"""Seconds between two rounds."""
INTERIM_GRACE_MS = 60_000
"""How long an interim keeps its body after it expires: longer than clocks differ."""

_log = logging.getLogger(__name__)


class Retention:
    """Prunes the log, round after round, until it is cancelled."""

    def __init__(self, commit: GroupCommit, reader: Reader, clock: Clock, *, keep_ms: int, concurrent: bool) -> None:
        """``concurrent``: transactions of several processes run at once."""
        self._commit, self._reader, self._clock, self._keep_ms = commit, reader, clock, keep_ms
        self._step = STEP_BESIDE if concurrent else STEP

    async def run(self) -> None:
        """Run a round now, then one a minute."""
        while True:
            try:
                await self.prune()
            except OutboxError as error:
                _log.warning("the log could not be pruned: %s", error)
            await asyncio.sleep(EVERY)

    async def prune(self) -> None:
        """Run one round: remove everything that may be removed. Raises ``OutboxError`` if the log cannot be written."""
        now = self._clock.now_ms()
        cutoff = now - self._keep_ms
        step = self._step
        await self._repeat(partial(_empty_interims, cutoff=now - INTERIM_GRACE_MS, step=step), step)
        for table in (attempts, answers):
            last = await self._reader.query(partial(_last_old, table, cutoff=cutoff, now=now))
            if last is not None:
                await self._repeat(partial(_prune_attempts, table, upto=last, step=step), step)
        await self._commit.call(partial(_forget_writers, cutoff=cutoff), beside=True)
        after = 0
        # this search blocks no writer: nothing of a disabled endpoint's backlog may be removed
        while (last := await self._reader.query(partial(_next_streams, after=after))) is not None:
            found = await self._reader.query(partial(_prunable, after=after, upto=last, cutoff=cutoff))
            for sids in _together(found, step):
                await self._repeat(partial(_prune_streams, sids=sids, cutoff=cutoff, step=step), step)
            after = last

    async def _repeat(self, remove: Callable[[sa.Connection], int], step: int) -> None:
        """Repeat until a step removes less than its limit. Uses at most half of the time in which others would
        write."""
        loop, rows = asyncio.get_running_loop(), step
        while rows == step:
            began = loop.time()
            rows = await self._commit.call(remove, beside=True)
            await asyncio.sleep(loop.time() - began)


def _empty_interims(connection: sa.Connection, cutoff: int, step: int) -> int:
    key = sa.tuple_(events.c.sid, events.c.sequence)
    # The literal 0 lets the database see that the partial index answers this.
    over = (events.c.expires_at > sa.literal_column("0")) & (events.c.expires_at < cutoff)
    some = sa.select(events.c.sid, events.c.sequence).where(over).order_by(events.c.expires_at).limit(step)
    return connection.execute(sa.update(events).where(key.in_(some)).values(body=b"", expires_at=0)).rowcount


def _last_old(table: sa.Table, connection: sa.Connection, cutoff: int, now: int) -> int | None:
    """The number of the last attempt that may be removed, with all before it: they are numbered in the order in which
    they were made."""
    old = sa.select(table.c.n).where(table.c.at < cutoff).order_by(table.c.n.desc()).limit(1)
    young = sa.select(table.c.n).where(table.c.at.between(cutoff, now)).order_by(table.c.n).limit(1)
    if (first_young := connection.execute(young).scalar()) is not None:
        old = old.where(table.c.n < first_young)
    return connection.execute(old).scalar()


def _prune_attempts(table: sa.Table, connection: sa.Connection, upto: int, step: int) -> int:
    oldest = sa.select(table.c.n).where(table.c.n <= upto).order_by(table.c.n).limit(step)
    return connection.execute(sa.delete(table).where(table.c.n.in_(oldest))).rowcount


def _forget_writers(connection: sa.Connection, cutoff: int) -> None:
    connection.execute(sa.delete(writers).where(writers.c.lease_until < cutoff))


def _next_streams(connection: sa.Connection, after: int) -> int | None:
    """The last of the next ``_LOOK`` streams; None at the end."""
    some = sa.select(streams.c.sid).where(streams.c.sid > after).order_by(streams.c.sid).limit(_LOOK).subquery()
    return connection.execute(sa.select(sa.func.max(some.c.sid))).scalar()


def _prunable(connection: sa.Connection, after: int, upto: int, cutoff: int) -> list[tuple[int, int | None]]:
    """Those of these streams that have something to prune: a closed one with its last sequence, an open one with
    None."""
    found = _with_something_to_prune(cutoff).where(streams.c.sid > after, streams.c.sid <= upto)
    rows = connection.execute(found.order_by(streams.c.sid))
    return [(row.sid, None if row.closed_at is None else row.upto) for row in rows]


def _together(found: Sequence[tuple[int, int | None]], step: int) -> Iterator[list[int]]:
    """Groups of closed streams with less than a step of events, and each other stream by itself."""
    group: list[int] = []
    count = 0
    for sid, events_at_most in found:
        if events_at_most is None or events_at_most >= step:
            yield [sid]
            continue
        if count + events_at_most >= step:
            yield group
            group, count = [], 0
        group.append(sid)
        count += events_at_most
    if group:
        yield group


def _with_something_to_prune(cutoff: int) -> sa.Select[tuple[int, int | None, int]]:
    rests = endpoints.c.by_api & endpoints.c.disabled_at.is_not(None)
    active = sa.exists().where(endpoints.c.name == lanes.c.endpoint, endpoints.c.active, ~rests)
    waiting = sa.and_(lanes.c.sid == streams.c.sid, active)
    # Correlated explicitly: within the EXISTS below, a subquery would otherwise add a ``streams`` of its own.
    behind = sa.func.min(sa.func.coalesce(parked.c.sequence - 1, lanes.c.cursor))  # parked events are behind the cursor
    of_lanes = sa.select(behind).select_from(lanes).outerjoin(parked, parked.c.lane == lanes.c.lane)
    held = of_lanes.where(waiting).correlate(streams).scalar_subquery()
    settled_at = sa.select(sa.func.max(lanes.c.settled_at)).where(waiting).correlate(streams).scalar_subquery()
    upto = sa.func.coalesce(held, streams.c.last_sequence)
    oldest = sa.exists().where(events.c.sid == streams.c.sid, events.c.sequence <= upto, events.c.emitted_at < cutoff)
    sent_again = sa.select(resends.c.resend).join(lanes, lanes.c.lane == resends.c.lane).where(waiting)
    done = (upto == streams.c.last_sequence) & (sa.func.coalesce(settled_at, 0) < cutoff)
    return sa.select(streams.c.sid, streams.c.closed_at, upto.label("upto")).where(
        streams.c.opened_at < cutoff,
        ~sent_again.correlate(streams).exists(),
        sa.case((streams.c.closed_at.is_(None), oldest), else_=(streams.c.closed_at < cutoff) & done),
    )


def _prune_streams(connection: sa.Connection, sids: Sequence[int], cutoff: int, step: int) -> int:
    """Prune one step of one stream, or several closed streams as a whole, which have less than a step of events
    together; returns how many events were removed."""
    found = connection.execute(_with_something_to_prune(cutoff).where(streams.c.sid.in_(sids))).all()
    if not found:
        return 0
    if len(found) == 1:
        (stream,) = found
        gone = _prune_events(connection, stream.sid, stream.upto, step, cutoff if stream.closed_at is None else None)
        if gone == step or stream.closed_at is None:
            return gone
    else:
        gone = 0
    removed = [stream.sid for stream in found]
    for table in (dead_letters, parked, resends):
        connection.execute(sa.delete(table).where(table.c.lane.in_(_lanes_of(removed))))
    gone += connection.execute(sa.delete(events).where(events.c.sid.in_(removed))).rowcount
    for table in (lanes, streams):
        connection.execute(sa.delete(table).where(table.c.sid.in_(removed)))
    return gone


def _prune_events(connection: sa.Connection, sid: int, upto: int, step: int, cutoff: int | None) -> int:
    """Delete a stream's oldest events, up to the first that is not older than ``cutoff``; returns how many."""
    oldest = sa.select(events.c.sequence, events.c.emitted_at).where(events.c.sid == sid, events.c.sequence <= upto)
    gone = 0
    last = None
    for sequence, emitted_at in connection.execute(oldest.order_by(events.c.sequence).limit(step)):
        if cutoff is not None and emitted_at >= cutoff:
            break
        gone, last = gone + 1, sequence
    if last is not None:
        connection.execute(sa.delete(events).where(events.c.sid == sid, events.c.sequence <= last))
        for table in (dead_letters, parked):
            connection.execute(sa.delete(table).where(table.c.lane.in_(_lanes_of([sid])), table.c.sequence <= last))
        # Only lanes of inactive endpoints can be behind; a dispatcher that still holds one has lost it.
        behind = sa.update(lanes).where(lanes.c.sid == sid, lanes.c.cursor < last)
        connection.execute(behind.values(cursor=last, last_sent=last, attempts=0, fence=lanes.c.fence + 1))
    return gone


def _lanes_of(sids: Sequence[int]) -> sa.Select[tuple[int]]:
    return sa.select(lanes.c.lane).where(lanes.c.sid.in_(sids))
