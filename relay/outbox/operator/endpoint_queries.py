"""Queries about endpoints. Each runs on the caller's connection."""

from collections import Counter
from typing import Any

import sqlalchemy as sa

from relay.outbox.log.endpoints import states
from relay.outbox.operator.views import EndpointView, Wanted
from relay.outbox.schema import dead_letters, events, lanes, parked, resends, streams


def endpoint_views(connection: sa.Connection, wanted: Wanted, now: int) -> list[EndpointView]:
    """Every endpoint that the log knows, by name."""
    pending, oldest = _pending(connection, wanted, now)
    failing = sa.select(lanes.c.endpoint, sa.func.count()).where(lanes.c.next_at.is_not(None), lanes.c.attempts > 0)
    retrying_of = _counts(connection, failing.group_by(lanes.c.endpoint))
    resending_of = _counts(connection, sa.select(resends.c.endpoint, sa.func.count()).group_by(resends.c.endpoint))
    parked_of = _counts(connection, sa.select(parked.c.endpoint, sa.func.count()).group_by(parked.c.endpoint))
    of_lane = sa.select(lanes.c.endpoint, sa.func.count()).join(dead_letters, dead_letters.c.lane == lanes.c.lane)
    dead_of = _counts(connection, of_lane.group_by(lanes.c.endpoint))
    return [
        EndpointView(
            state=state,
            pending=pending[name],
            oldest_pending=oldest.get(name),
            retrying=retrying_of.get(name, 0),
            parked=parked_of.get(name, 0),
            dead=dead_of.get(name, 0),
            resending=resending_of.get(name, 0),
        )
        for name, state in states(connection).items()
    ]


def _pending(connection: sa.Connection, wanted: Wanted, now: int) -> tuple[Counter[str], dict[str, int]]:
    """By endpoint, how many subscribed events it has not received, and when the first was appended.

    Expired interims are no longer sent, and not counted.
    """
    # A lane without remaining events has no due time: of a hundred thousand lanes, only those behind are read.
    kinds = (lanes.c.endpoint, streams.c.room, streams.c.participant, events.c.type)
    waiting = (
        sa.select(*kinds, sa.func.count().label("events"), sa.func.min(events.c.emitted_at).label("oldest"))
        .select_from(lanes)
        .join(streams, streams.c.sid == lanes.c.sid)
        .join(events, (events.c.sid == lanes.c.sid) & (events.c.sequence > lanes.c.cursor))
        .where(lanes.c.next_at.is_not(None), sa.func.coalesce(events.c.expires_at > now, sa.true()))
        .group_by(*kinds)
    )
    count: Counter[str] = Counter()
    oldest: dict[str, int] = {}
    for row in connection.execute(waiting):
        if wanted(row.endpoint, row.room, row.participant, row.type):
            count[row.endpoint] += row.events
            oldest[row.endpoint] = min(row.oldest, oldest.get(row.endpoint, row.oldest))
    return count, oldest


def _counts(connection: sa.Connection, query: sa.Select[Any]) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(query)}
