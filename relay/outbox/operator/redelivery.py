"""Redelivers events at an operator's request. A running dispatcher finds the request at its next sweep, a stopped one
at its start."""

from collections.abc import AsyncIterator, Callable
from enum import Enum
from functools import partial

import sqlalchemy as sa

from relay.clock import Clock
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.reader import Reader
from relay.outbox.log.resends import STEP as RESEND_STEP
from relay.outbox.log.resends import LaneToResend, Resend, Resent, add, lanes_to_look_at, lanes_to_resend
from relay.outbox.operator.event_queries import find_event
from relay.outbox.schema import dead_letters, events, lanes, parked

STEP = 500
"""Dead events retried per transaction."""


class Retried(Enum):
    """The result of a request for another attempt."""

    REVIVED = "revived"
    """It was dead, and is now parked: due now, with its whole schedule ahead."""
    HASTENED = "hastened"
    """It was waiting for a retry, and is due now."""
    UNDER_WAY = "under way"
    """A dispatcher is sending it."""
    IN_TURN = "in turn"
    """It has not failed: it is sent after those before it on its stream."""
    SETTLED = "settled"
    """It was delivered, or will never be."""
    EMPTIED = "emptied"
    """Its content was purged: nothing is left to send."""
    UNKNOWN = "unknown"
    """The log does not have it, or the endpoint has no lane for it."""


StreamWanted = Callable[[str, str], bool]
"""Whether an endpoint subscribes to anything of a room (by name) and participant (by identity)."""


class Redelivery:
    """Requests redelivery of events. Every method raises ``OutboxError`` if the log cannot be used."""

    def __init__(self, commit: GroupCommit, reader: Reader, clock: Clock) -> None:
        self._commit, self._reader, self._clock = commit, reader, clock

    async def retry(self, event_id: str, endpoint: str) -> Retried:
        """Retry a failed event now."""
        return await self._commit.call(partial(_retry, event_id=event_id, endpoint=endpoint, now=self._clock.now_ms()))

    async def retry_dead(self, endpoint: str, *, since: int = 0) -> AsyncIterator[int]:
        """Retry every event that died for this endpoint at ``since`` or later; returns how many, step by step.

        Events that die meanwhile are left alone.
        """
        upto = await self._dead_until(endpoint)
        while True:
            step = partial(_revive_some, endpoint=endpoint, since=since, upto=upto, now=self._clock.now_ms())
            revived = await self._commit.call(step)
            if revived:
                yield revived
            if revived < STEP:
                return

    async def discard_dead(self, endpoint: str, *, since: int = 0) -> AsyncIterator[int]:
        """Dismiss the events that died for this endpoint at ``since`` or later; returns how many, step by step. The
        events are kept.

        They then count as settled, as if delivered, and leave the log with the others.
        """
        upto = await self._dead_until(endpoint)
        step = partial(_discard_some, endpoint=endpoint, since=since, upto=upto)
        while discarded := await self._commit.call(step):
            yield discarded

    async def discard(self, event_id: str, endpoint: str) -> bool:
        """Dismiss one dead event; False if it is not dead."""
        return await self._commit.call(partial(_discard, event_id=event_id, endpoint=endpoint))

    async def _dead_until(self, endpoint: str) -> int:
        """When the endpoint's newest dead event died, or now: it may lie in the future if the clock was set back
        since."""
        newest = (
            sa.select(sa.func.max(dead_letters.c.at))
            .join(lanes, lanes.c.lane == dead_letters.c.lane)
            .where(lanes.c.endpoint == endpoint)
        )
        died = await self._reader.query(lambda connection: connection.execute(newest).scalar_one())
        return max(self._clock.now_ms(), died or 0)

    async def resend(self, resend: Resend, wanted: StreamWanted, *, dry_run: bool = False) -> Resent:
        """Resend what was delivered in a time range; returns what that covers. ``dry_run``: only count."""
        resent, asked, after = Resent(), list[LaneToResend](), 0
        while some := await self._reader.query(partial(lanes_to_look_at, resend=resend, after=after)):
            after = some[-1].lane
            which = [row.lane for row in some if wanted(row.room, row.participant)]
            for lane in await self._reader.query(partial(lanes_to_resend, resend=resend, which=which)):
                resent.pruned += lane.pruned
                resent.events += lane.count
                if lane.count:
                    resent.streams += 1
                    asked.append(lane)
        for start in range(0, 0 if dry_run else len(asked), RESEND_STEP):
            those = asked[start : start + RESEND_STEP]
            await self._commit.call(partial(add, resend=resend, those=those, now=self._clock.now_ms()))
        return resent


def _retry(connection: sa.Connection, *, event_id: str, endpoint: str, now: int) -> Retried:
    found = find_event(connection, event_id)
    if found is None:
        return Retried.UNKNOWN
    sid, event = found
    of_endpoint = sa.select(lanes).where(lanes.c.sid == sid, lanes.c.endpoint == endpoint)
    lane = connection.execute(of_endpoint).first()
    if lane is None:
        return Retried.UNKNOWN
    if not event.body:
        return Retried.EMPTIED
    if _revive(connection, (dead_letters.c.lane == lane.lane) & (dead_letters.c.sequence == event.sequence), now):
        return Retried.REVIVED
    this = (parked.c.lane == lane.lane) & (parked.c.sequence == event.sequence)
    if connection.execute(sa.update(parked).where(this, parked.c.owner.is_(None)).values(next_at=now)).rowcount:
        return Retried.HASTENED
    if connection.execute(sa.select(sa.exists().where(this))).scalar_one():
        return Retried.UNDER_WAY
    if event.sequence <= lane.cursor:
        return Retried.SETTLED
    if event.sequence > lane.cursor + 1 or lane.attempts == 0:
        return Retried.IN_TURN
    free = sa.update(lanes).where(lanes.c.lane == lane.lane, lanes.c.owner.is_(None))
    return Retried.HASTENED if connection.execute(free.values(next_at=now)).rowcount else Retried.UNDER_WAY


def _revive_some(connection: sa.Connection, *, endpoint: str, since: int, upto: int, now: int) -> int:
    some = (
        sa.select(dead_letters.c.lane, dead_letters.c.sequence)
        .join(lanes, lanes.c.lane == dead_letters.c.lane)
        .join(events, (events.c.sid == lanes.c.sid) & (events.c.sequence == dead_letters.c.sequence))
        .where(lanes.c.endpoint == endpoint, dead_letters.c.at.between(since, upto), sa.func.length(events.c.body) > 0)
        .order_by(dead_letters.c.at)
        .limit(STEP)
    )
    found = [tuple(row) for row in connection.execute(some)]
    return _revive(connection, sa.tuple_(dead_letters.c.lane, dead_letters.c.sequence).in_(found), now) if found else 0


def _discard(connection: sa.Connection, *, event_id: str, endpoint: str) -> bool:
    found = find_event(connection, event_id)
    if found is None:
        return False
    sid, event = found
    lane = sa.select(lanes.c.lane).where(lanes.c.sid == sid, lanes.c.endpoint == endpoint).scalar_subquery()
    this = (dead_letters.c.lane == lane) & (dead_letters.c.sequence == event.sequence)
    return bool(connection.execute(sa.delete(dead_letters).where(this)).rowcount)


def _discard_some(connection: sa.Connection, *, endpoint: str, since: int, upto: int) -> int:
    some = (
        sa.select(dead_letters.c.lane, dead_letters.c.sequence)
        .join(lanes, lanes.c.lane == dead_letters.c.lane)
        .where(lanes.c.endpoint == endpoint, dead_letters.c.at.between(since, upto))
        .limit(STEP)
    )
    these = sa.tuple_(dead_letters.c.lane, dead_letters.c.sequence).in_(some)
    return connection.execute(sa.delete(dead_letters).where(these)).rowcount


def _revive(connection: sa.Connection, which: sa.ColumnElement[bool], now: int) -> int:
    """Park these dead events, due now, as if never tried; returns how many."""
    columns = [
        "lane", "sequence", "endpoint", "attempts", "reason", "previous", "parked_at", "next_at", "fence", "outage",
    ]  # fmt: skip
    dead = (
        sa.select(
            dead_letters.c.lane,
            dead_letters.c.sequence,
            lanes.c.endpoint,
            sa.literal(0),
            dead_letters.c.reason,
            dead_letters.c.previous,
            sa.literal(now),
            sa.literal(now),
            sa.literal(now),  # above that of any claim it had when it was parked before
            sa.false(),
        )
        .join(lanes, lanes.c.lane == dead_letters.c.lane)
        .where(which)
    )
    connection.execute(sa.insert(parked).from_select(columns, dead))
    return connection.execute(sa.delete(dead_letters).where(which)).rowcount
