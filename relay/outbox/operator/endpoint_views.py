"""How endpoints stand: their health, and what waits for them. Each query runs on the caller's connection."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relay.outbox.log.endpoints import states
from relay.outbox.operator.views import EndpointView, Wanted
from relay.outbox.schema import dead_letters, events, lanes, parked, resends, streams


def endpoint_views(
    connection: sa.Connection, wanted: Wanted, now: int, names: Collection[str] | None, most: int | None
) -> list[EndpointView]:
    """Every endpoint that the log knows, or those of these names, by name. ``most``: how many events of each backlog
    are read."""
    known = states(connection, names)
    failing = sa.select(lanes.c.endpoint, sa.func.count()).where(lanes.c.next_at.is_not(None), lanes.c.attempts > 0)
    retrying_of = _counts(connection, failing, lanes, names)
    resending_of = _counts(connection, sa.select(resends.c.endpoint, sa.func.count()), resends, names)
    parked_of = _counts(connection, sa.select(parked.c.endpoint, sa.func.count()), parked, names)
    of_lane = sa.select(lanes.c.endpoint, sa.func.count()).join(dead_letters, dead_letters.c.lane == lanes.c.lane)
    dead_of = _counts(connection, of_lane, lanes, names)
    due = sa.select(lanes.c.endpoint, sa.func.count()).where(lanes.c.next_at.is_not(None))
    behind = _counts(connection, due, lanes, names)
    backlogs = {name: _backlog(connection, wanted, now, name, most) if name in behind else _Backlog() for name in known}
    return [
        EndpointView(
            state=known[name],
            pending=backlogs[name].pending,
            oldest_pending=backlogs[name].oldest,
            retrying=retrying_of.get(name, 0),
            parked=parked_of.get(name, 0),
            dead=dead_of.get(name, 0),
            resending=resending_of.get(name, 0),
            more_pending=backlogs[name].more,
        )
        for name in sorted(known)
    ]


@dataclass(slots=True)
class _Backlog:
    pending: int = 0
    """Subscribed events that were not received. Expired interims are no longer sent, and not counted."""
    oldest: int | None = None
    """When the first of them was appended."""
    more: bool = False
    """Whether there may be more: not all were read."""


def _backlog(connection: sa.Connection, wanted: Wanted, now: int, name: str, most: int | None) -> _Backlog:
    # A lane without remaining events has no due time: of a hundred thousand lanes, only those behind are read.
    behind = (
        sa.select(
            streams.c.room,
            streams.c.participant,
            events.c.type,
            events.c.emitted_at,
            sa.func.coalesce(events.c.expires_at > now, sa.true()).label("sendable"),
        )
        .select_from(lanes)
        .join(streams, streams.c.sid == lanes.c.sid)
        .join(events, (events.c.sid == lanes.c.sid) & (events.c.sequence > lanes.c.cursor))
        .where(lanes.c.endpoint == name, lanes.c.next_at.is_not(None))
    )
    if most is not None:
        behind = behind.order_by(lanes.c.next_at).limit(most)
    read = behind.subquery()
    kinds = (read.c.room, read.c.participant, read.c.type, read.c.sendable)
    waiting = sa.select(*kinds, sa.func.count().label("events"), sa.func.min(read.c.emitted_at).label("oldest"))
    backlog, looked_at = _Backlog(), 0
    for row in connection.execute(waiting.group_by(*kinds)):
        looked_at += row.events
        if row.sendable and wanted(name, row.room, row.participant, row.type):
            backlog.pending += row.events
            backlog.oldest = row.oldest if backlog.oldest is None else min(row.oldest, backlog.oldest)
    backlog.more = looked_at == most
    return backlog


def _counts(
    connection: sa.Connection, query: sa.Select[Any], table: sa.Table, names: Iterable[str] | None
) -> dict[str, int]:
    if names is not None:
        query = query.where(table.c.endpoint.in_(list(names)))
    return {row[0]: row[1] for row in connection.execute(query.group_by(table.c.endpoint))}
