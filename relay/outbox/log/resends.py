"""Sends delivered events again at an operator's request, from the log, in each stream's order.

A resend for an endpoint is one row per stream: a separate cursor that a dispatcher leases, sends from and advances,
event by event. The stream's lane and its ``relay-previous-sequence`` are left alone. The oldest row of a lane goes
first. The row is deleted when nothing is left after its cursor.

Only durable events that are settled for the endpoint are sent again: pending, parked and dead events have their own
paths.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from relay.events.envelope import Delivery
from relay.outbox.log.parked import leased
from relay.outbox.log.streams import due, first_emitted_at, record_of, served
from relay.outbox.records import ParkedEvent, ParkedSettlement, StreamShare
from relay.outbox.schema import dead_letters, events, lanes, parked, resends, streams

STEP = 5000
"""Rows per transaction: most resends are requested in one, completely or not at all."""
_PAGE = 500
ALL = 2**63 - 1
"""The latest time a column can hold. Not the clock's: it may have been set back since the newest event."""


@dataclass(frozen=True, slots=True)
class Resend:
    """A request to send events again to an endpoint."""

    endpoint: str
    since: int
    until: int
    """Emitted before then; ``ALL`` for everything in the log at the time of the request."""
    types: Collection[str]
    """The event types that the endpoint subscribes to, in full."""


@dataclass(slots=True)
class Resent:
    """What a resend covers."""

    events: int = 0
    streams: int = 0
    pruned: int = 0
    """At most this many events of the same streams in that time are no longer in the log."""


@dataclass(frozen=True, slots=True)
class LaneToResend:
    """One stream's part of a resend."""

    lane: int
    first: int
    upto: int
    count: int
    pruned: int


def lanes_to_look_at(connection: sa.Connection, resend: Resend, after: int) -> Sequence[sa.Row[int, str, str]]:
    """The endpoint's next lanes after this one whose streams were open in that time, or have events of that time: lane,
    room and participant."""
    newest = events.alias()
    last = (newest.c.sid == streams.c.sid) & (newest.c.sequence == streams.c.last_sequence)
    # Of a clock that was set back, a stream keeps the later time for its events, and is closed at an earlier one.
    ended_before = (streams.c.closed_at < resend.since) & ~sa.exists().where(last, newest.c.emitted_at >= resend.since)
    began = (streams.c.opened_at < resend.until) | (first_emitted_at() < resend.until)
    within = began & sa.func.coalesce(~ended_before, sa.true())
    some = (
        sa.select(lanes.c.lane, streams.c.room, streams.c.participant)
        .join(streams, streams.c.sid == lanes.c.sid)
        .where(lanes.c.lane > after, lanes.c.endpoint == resend.endpoint, within)
        .order_by(lanes.c.lane)
        .limit(_PAGE)
    )
    return connection.execute(some).all()


def lanes_to_resend(connection: sa.Connection, resend: Resend, which: Collection[int]) -> list[LaneToResend]:
    """What each of these lanes sends again; lanes with nothing to send and nothing lost are left out."""
    of_lane = (lanes.c.lane, lanes.c.sid, lanes.c.cursor, lanes.c.settled_at)
    kept = (
        sa.select(*of_lane, sa.func.min(events.c.sequence).label("first_kept"))
        .outerjoin(events, events.c.sid == lanes.c.sid)
        .where(lanes.c.lane.in_(which))
        .group_by(*of_lane)
    )
    found_in: list[LaneToResend] = []
    for lane in connection.execute(kept).all():
        asked = _to_send(lane.lane, resend.since, resend.until, resend.types)
        of_stream = (events.c.sid == lane.sid) & (events.c.sequence <= lane.cursor)
        found = connection.execute(
            sa.select(sa.func.count().label("n"), sa.func.min(events.c.sequence).label("first")).where(of_stream, asked)
        ).one()
        pruned = 0
        if lane.first_kept is None:  # what is gone was emitted before it was settled
            pruned = lane.cursor if lane.settled_at > resend.since else 0
        elif lane.first_kept > 1:
            first = (events.c.sid == lane.sid) & (events.c.sequence == lane.first_kept)
            oldest = connection.execute(sa.select(events.c.emitted_at).where(first)).scalar_one()
            pruned = lane.first_kept - 1 if oldest > resend.since else 0
        if found.n or pruned:
            found_in.append(LaneToResend(lane.lane, found.first or 0, lane.cursor, found.n, pruned))
    return found_in


def add(connection: sa.Connection, resend: Resend, those: Sequence[LaneToResend], now: int) -> None:
    """Request it: a running dispatcher finds it at its next sweep, a stopped one at its start."""
    asked = {"endpoint": resend.endpoint, "since": resend.since, "until": resend.until}
    fresh = {"previous": 0, "attempts": 0, "asked_at": now, "next_at": now, "fence": now, "outage": False}
    types = json.dumps(sorted(resend.types))
    rows = [
        {**asked, **fresh, "types": types, "lane": one.lane, "cursor": one.first - 1, "upto": one.upto} for one in those
    ]
    connection.execute(sa.insert(resends), rows)


def claim(
    connection: sa.Connection,
    owner: str,
    wants: Mapping[str, int],
    now: int,
    lease_until: int,
    shares: Mapping[str, StreamShare],
) -> list[ParkedEvent]:
    """Lease the next event of up to this many due resends of each endpoint. An empty one is finished."""
    claimed: list[ParkedEvent] = []
    for endpoint, most in wants.items():
        upto, over = len(claimed) + most, True
        while over and len(claimed) < upto:  # a finished one may have had another of its lane behind it
            these = _due(endpoint, now, upto - len(claimed), shares.get(endpoint))
            over = _claim_of(connection, these, owner, lease_until, claimed)
    return claimed


def _claim_of(
    connection: sa.Connection,
    these: sa.Select[tuple[object, ...]],
    owner: str,
    lease_until: int,
    claimed: list[ParkedEvent],
) -> bool:
    """Add the next events of due resends to the ``claimed`` ones; returns whether a resend was finished."""
    over = False
    for row in connection.execute(these).all():
        asked = _to_send(row.lane, row.since, row.until, json.loads(row.types))
        behind = (events.c.sid == row.sid) & (events.c.sequence > row.cursor) & (events.c.sequence <= row.upto)
        following = sa.select(events).where(behind, asked).order_by(events.c.sequence).limit(1)
        event = connection.execute(following).first()
        this = resends.c.resend == row.resend
        if event is None:
            connection.execute(sa.delete(resends).where(this))
            over = True
            continue
        taken = sa.update(resends).where(this)
        connection.execute(taken.values(owner=owner, fence=resends.c.fence + 1, next_at=lease_until))
        claimed.append(leased(row, record_of(event), lease_until, resend=row.resend))
    return over


def settle(connection: sa.Connection, settlement: ParkedSettlement, now: int) -> bool:
    """Record the result of an event that was sent again; returns whether its resend was still held.

    The resend continues after it, even if the event is dead.
    """
    held = (resends.c.resend == settlement.resend) & (resends.c.fence == settlement.fence)
    row = sa.update(resends).where(held, resends.c.owner.is_not(None)).values(owner=None, outage=settlement.outage)
    if settlement.retry_at is not None:
        again = {"attempts": settlement.attempts, "next_at": settlement.retry_at, "failed_at": settlement.failed_at}
        return bool(connection.execute(row.values(**again)).rowcount)
    on = row.values(cursor=settlement.sequence, attempts=0, next_at=now, failed_at=None)
    if settlement.tries:  # it was sent: the next one follows it
        on = on.values(previous=settlement.sequence)
    return bool(connection.execute(on).rowcount)


def _to_send(lane: int, since: int, until: int, types: Collection[str]) -> sa.ColumnElement[bool]:
    """Which events of the lane's stream are sent again."""
    aside = [
        ~sa.exists().where(table.c.lane == lane, table.c.sequence == events.c.sequence)
        for table in (parked, dead_letters)
    ]
    return sa.and_(
        events.c.emitted_at >= since,
        events.c.emitted_at < until,
        events.c.delivery == Delivery.DURABLE.value,
        events.c.type.in_(types),
        sa.func.length(events.c.body) > 0,
        *aside,
    )


def _due(endpoint: str, now: int, most: int, share: StreamShare | None) -> sa.Select[tuple[object, ...]]:
    earlier = resends.alias()
    first_of_lane = ~sa.exists().where(earlier.c.lane == resends.c.lane, earlier.c.resend < resends.c.resend)
    return (
        sa.select(resends, lanes.c.sid, streams.c.room, streams.c.participant)
        .join(lanes, lanes.c.lane == resends.c.lane)
        .join(streams, streams.c.sid == lanes.c.sid)
        .where(resends.c.endpoint == endpoint, due(resends, now, share), first_of_lane, served(endpoint))
        .order_by(resends.c.next_at)
        .limit(most)
        .with_for_update(of=resends, skip_locked=True)
    )
