"""Questions about endpoints. Each runs on a connection of its caller."""

from typing import Any

import sqlalchemy as sa

from relay.outbox.endpoints import states
from relay.outbox.schema import dead_letters, events, lanes, parked, streams
from relay.outbox.views import EndpointView


def endpoint_views(connection: sa.Connection) -> list[EndpointView]:
    """Every endpoint that the log knows, by name."""
    # A lane that has nothing left has no time to be due at: of a hundred thousand, only those behind are looked at.
    head = (events.c.sid == lanes.c.sid) & (events.c.sequence == lanes.c.cursor + 1)
    waiting = (
        sa.select(
            lanes.c.endpoint,
            sa.func.sum(streams.c.last_sequence - lanes.c.cursor).label("pending"),
            sa.func.min(events.c.emitted_at).label("oldest"),
            sa.func.sum(sa.case((lanes.c.attempts > 0, 1), else_=0)).label("retrying"),
        )
        .join(streams, streams.c.sid == lanes.c.sid)
        .outerjoin(events, head)
        .where(lanes.c.next_at.is_not(None))
        .group_by(lanes.c.endpoint)
    )
    lanes_behind = {row.endpoint: row for row in connection.execute(waiting)}
    parked_of = _counts(connection, sa.select(parked.c.endpoint, sa.func.count()).group_by(parked.c.endpoint))
    of_lane = sa.select(lanes.c.endpoint, sa.func.count()).join(dead_letters, dead_letters.c.lane == lanes.c.lane)
    dead_of = _counts(connection, of_lane.group_by(lanes.c.endpoint))
    return [
        EndpointView(
            state=state,
            pending=late.pending if (late := lanes_behind.get(name)) else 0,
            oldest_pending=late.oldest if late else None,
            retrying=late.retrying if late else 0,
            parked=parked_of.get(name, 0),
            dead=dead_of.get(name, 0),
        )
        for name, state in states(connection).items()
    ]


def _counts(connection: sa.Connection, query: sa.Select[Any]) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(query)}
