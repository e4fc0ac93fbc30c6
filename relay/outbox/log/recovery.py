"""Reschedules an endpoint's waiting retries when it recovers.

Each waiting row records what failed. ``outage``: the endpoint, or unknown: the event is due as soon as the endpoint
accepts something. Otherwise it failed beside a healthy endpoint, and waits for its own schedule, unless an undetected
outage had begun at ``failed_at``. ``failed_at`` null: the endpoint asked for that wait.

What becomes due is due since it began to fail: a claim takes what has waited longest first. A parked event after which
nothing was sent returns to the head of its lane, so that its stream arrives in order. A wait cut short by a recovery
uses up no step of the schedule: an endpoint that fails and recovers all day turns no event into a dead letter.

Rows that a dispatcher holds are left alone. Everything here may be repeated.
"""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from relay.outbox.schema import lanes, parked, resends

STEP = 500
"""Maximum rows per transaction, so that appends can run in between."""


_SINCE = {parked.name: parked.c.parked_at.name, resends.name: resends.c.asked_at.name}


def lanes_with_parked(connection: sa.Connection, endpoint: str, after: int) -> list[int]:
    """The endpoint's next lanes, after this one, that have parked events."""
    some = sa.select(parked.c.lane).where(parked.c.endpoint == endpoint, parked.c.lane > after)
    return list(connection.execute(some.distinct().order_by(parked.c.lane).limit(STEP)).scalars())


def put_back(connection: sa.Connection, which: Collection[int], now: int, since: int | None, *, due: bool) -> int:
    """Move parked events of these lanes back to the heads of their lanes; returns how many.

    Only if nothing was sent after them, and an outage may have been the reason. ``due``: the lanes are due now, else
    they keep their retry time.
    """
    of_lanes = (
        sa.select(parked, lanes.c.last_sent)
        .join(lanes, lanes.c.lane == parked.c.lane)
        .where(parked.c.lane.in_(which), lanes.c.owner.is_(None))
        .order_by(parked.c.lane, parked.c.sequence.desc())
        .with_for_update()
    )
    count = 0
    for lane, rows in groupby(connection.execute(of_lanes).all(), key=lambda row: row.lane):
        back = _back(list(rows), since)
        if not back:
            continue
        count += len(back)
        head = back[-1]
        connection.execute(sa.delete(parked).where(parked.c.lane == lane, parked.c.sequence >= head.sequence))
        moved = sa.update(lanes).where(lanes.c.lane == lane).values(cursor=head.sequence - 1, last_sent=head.previous)
        attempts = head.attempts - 1 if due else head.attempts
        moved = moved.values(attempts=max(1, attempts), failing_since=head.parked_at)
        newest = max(row.fence for row in back)  # a fence above any claim that a dispatcher may still hold
        moved = moved.values(fence=sa.case((lanes.c.fence < newest, newest), else_=lanes.c.fence))
        connection.execute(moved.values(next_at=min(head.parked_at, now)) if due else moved)
    return count


def _back(rows: Sequence[sa.Row[Any]], since: int | None) -> list[sa.Row[Any]]:
    """One lane's parked events, latest first, after which nothing was sent."""
    back: list[sa.Row[Any]] = []
    last_sent: int = rows[0].last_sent
    for row in rows:
        in_outage = row.outage or (since is not None and row.failed_at is not None and row.failed_at >= since)
        if row.sequence != last_sent or row.owner is not None or not in_outage:
            break
        back.append(row)
        last_sent = row.previous
    return back


def hasten(
    connection: sa.Connection,
    table: sa.Table,
    endpoint: str,
    now: int,
    *,
    since: int | None,
    every: bool,
) -> int:
    """Make some waiting lanes, parked events or resends due now; returns how many. ``every``: whatever failed."""
    key, next_at, attempts = list(table.primary_key), table.c.next_at, table.c.attempts
    waits = (table.c.endpoint == endpoint) & (next_at > now) & table.c.owner.is_(None)
    if not every:
        waits &= table.c.outage if since is None else table.c.outage | (table.c.failed_at >= since)
    some = sa.tuple_(*key).in_(sa.select(*key).where(waits).limit(STEP))
    began = table.c.failing_since if table is lanes else table.c[_SINCE[table.name]]  # null after a fault of our own
    earliest = sa.case((began < now, began), else_=now)
    due = sa.update(table).where(some).values(next_at=earliest)
    if not every:
        least = 1 if table is lanes else 0  # without failed attempts it would not be known since when
        due = due.values(attempts=sa.case((attempts > least, attempts - 1), else_=attempts))
    return connection.execute(due).rowcount
