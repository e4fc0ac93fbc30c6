"""Parks, retries and gives up events outside their lane's order. The statements run in the caller's transaction, and
are rare."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from relay.events.operator import DeliveryDead, DeliveryParked
from relay.outbox.database import Database
from relay.outbox.log.notices import Undelivered, tell_undelivered
from relay.outbox.log.streams import due, record_of, served
from relay.outbox.records import DeadLetter, ParkedEvent, ParkedSettlement, Record, Settlement, StreamShare
from relay.outbox.schema import dead_letters, events, lanes, parked, streams


def put_aside(
    connection: sa.Connection, database: Database, settlements: Sequence[Settlement], now: int
) -> frozenset[int]:
    """Store what these settlements park or give up, and report it; returns the streams that have grown."""
    # A settlement is repeated if its commit seemed to fail; it may have succeeded.
    dead = [(of.lane, of.dead) for of in settlements if of.dead]
    dead = [each for each in dead if not _is_in(connection, dead_letters, each[0], each[1].sequence)]
    aside = [(of, of.parked) for of in settlements if of.parked]
    aside = [each for each in aside if not _is_in(connection, parked, each[0].lane, each[1].sequence)]
    if dead:
        _bury(connection, dead, now)
    if aside:
        of_lanes = sa.select(lanes.c.lane, lanes.c.endpoint).where(lanes.c.lane.in_({of.lane for of, _ in aside}))
        endpoint_of = {row.lane: row.endpoint for row in connection.execute(of_lanes)}
        rows = [
            {
                "lane": of.lane,
                "sequence": parking.sequence,
                "endpoint": endpoint_of[of.lane],
                "attempts": parking.attempts,
                "reason": parking.reason,
                "previous": parking.previous,
                "parked_at": now,
                "next_at": parking.retry_at,
                # continues from the lane's fence: an event that was back in its lane meanwhile may be parked again
                "fence": of.fence,
                "failed_at": parking.failed_at,
                "outage": parking.outage,
            }
            for of, parking in aside
        ]
        connection.execute(sa.insert(parked), rows)
    undelivered = [Undelivered(DeliveryDead, lane, one.sequence, one.attempts, one.reason) for lane, one in dead]
    undelivered += [Undelivered(DeliveryParked, of.lane, one.sequence, one.attempts, one.reason) for of, one in aside]
    return tell_undelivered(connection, database, undelivered, now) if undelivered else frozenset()


def claim(
    connection: sa.Connection,
    owner: str,
    wants: Mapping[str, int],
    now: int,
    lease_until: int,
    shares: Mapping[str, StreamShare],
) -> list[ParkedEvent]:
    """Lease up to this many due parked events of each endpoint, longest due first.

    An event that is gone, or was emptied, is no longer parked.
    """
    rows = [
        row
        for endpoint, most in wants.items()
        for row in connection.execute(_due(endpoint, now, most, shares.get(endpoint)))
    ]
    claimed = [row for row in rows if row.body]
    if claimed:
        taken = sa.update(parked).where(_these(claimed))
        connection.execute(taken.values(owner=owner, fence=parked.c.fence + 1, next_at=lease_until))
    if len(claimed) < len(rows):
        connection.execute(sa.delete(parked).where(_these([row for row in rows if not row.body])))
    return [leased(row, record_of(row), lease_until) for row in claimed]


def leased(row: sa.Row[Any], record: Record, lease_until: int, *, resend: int | None = None) -> ParkedEvent:
    """The event as its claimant holds it. The row, read before the claim, is of a parked event or of a resend."""
    return ParkedEvent(
        lane=row.lane,
        endpoint=row.endpoint,
        stream=row.sid,
        record=record,
        attempts=row.attempts,
        previous=row.previous,
        fence=row.fence + 1,
        lease_until=lease_until,
        room=row.room,
        participant=row.participant,
        resend=resend,
    )


def settle(connection: sa.Connection, settlement: ParkedSettlement, now: int) -> bool:
    """Record the result of a parked event; returns whether it was still held."""
    held = (
        (parked.c.lane == settlement.lane)
        & (parked.c.sequence == settlement.sequence)
        & (parked.c.fence == settlement.fence)
        & parked.c.owner.is_not(None)
    )
    if settlement.retry_at is not None:
        again = sa.update(parked).where(held).values(owner=None, next_at=settlement.retry_at)
        # an event released unsent has no new reason for its failure
        again = again.values(attempts=settlement.attempts, reason=settlement.reason or parked.c.reason)
        again = again.values(failed_at=settlement.failed_at, outage=settlement.outage)
        return bool(connection.execute(again).rowcount)
    if not connection.execute(sa.delete(parked).where(held)).rowcount:
        return False
    # The retention of the stream starts here.
    connection.execute(sa.update(lanes).where(lanes.c.lane == settlement.lane).values(settled_at=now))
    return True


def bury(connection: sa.Connection, database: Database, lane: int, dead: DeadLetter, now: int) -> frozenset[int]:
    """Make the event a dead letter, and report it; returns the streams that have grown."""
    _bury(connection, [(lane, dead)], now)
    told = Undelivered(DeliveryDead, lane, dead.sequence, dead.attempts, dead.reason)
    return tell_undelivered(connection, database, [told], now)


def _bury(connection: sa.Connection, dead: Sequence[tuple[int, DeadLetter]], now: int) -> None:
    rows = [
        {
            "lane": lane,
            "sequence": letter.sequence,
            "attempts": letter.attempts,
            "reason": letter.reason,
            "at": now,
            "previous": letter.previous,
        }
        for lane, letter in dead
    ]
    connection.execute(sa.insert(dead_letters), rows)


def _is_in(connection: sa.Connection, table: sa.Table, lane: int, sequence: int) -> bool:
    there = sa.exists().where(table.c.lane == lane, table.c.sequence == sequence)
    return bool(connection.execute(sa.select(there)).scalar_one())


def _these(rows: Sequence[sa.Row[Any]]) -> sa.ColumnElement[bool]:
    return sa.tuple_(parked.c.lane, parked.c.sequence).in_([(row.lane, row.sequence) for row in rows])


def _due(endpoint: str, now: int, most: int, share: StreamShare | None) -> sa.Select[tuple[object, ...]]:
    of_event = [column for column in events.c if column.name != "sequence"]
    return (
        sa.select(parked, *of_event, streams.c.room, streams.c.participant)
        .select_from(parked)
        .outerjoin(lanes, lanes.c.lane == parked.c.lane)
        .outerjoin(streams, streams.c.sid == lanes.c.sid)
        .outerjoin(events, (events.c.sid == lanes.c.sid) & (events.c.sequence == parked.c.sequence))
        .where(parked.c.endpoint == endpoint, due(parked, now, share), served(endpoint))
        .order_by(parked.c.next_at)
        .limit(most)
        .with_for_update(of=parked, skip_locked=True)
    )
