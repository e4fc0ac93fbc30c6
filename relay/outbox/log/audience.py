"""The lanes of the endpoints that are made over the API.

Endpoints of the configuration have a lane on every stream. There may be ten thousand of the others, nearly all of them
for other rooms: they have lanes only where they may get something, and cost a stream nothing elsewhere.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

import sqlalchemy as sa

from relay.outbox.schema import api_endpoint_rooms, api_endpoints, endpoints, lanes, streams

LONGEST_PREFIX = 64
_IDS_PER_QUERY = 500
_LITERAL = re.compile(r"[^*?\[]*")


@dataclass(frozen=True, slots=True)
class StreamAudience:
    """What of the log an endpoint asks for, and may have."""

    rooms: Sequence[str]
    """Globs, as the next two."""
    participants: Sequence[str]
    within: Sequence[str]
    """Of these rooms at most."""
    relay: bool
    """Whether it gets the relay's own streams."""

    def hears(self, room: str, participant: str) -> bool:
        """Whether it gets a lane on a stream of this room (by name) and participant (by identity)."""
        if not room:
            return self.relay
        return _any(room, self.within) and _any(room, self.rooms) and _any(participant, self.participants)

    def prefixes(self) -> set[str]:
        """The beginnings of rooms' names under which it is found: only of rooms that it may get. A tenant's patterns
        must not take the time of others."""
        asked, allowed = ({prefix_of(glob) for glob in globs} for globs in (self.rooms, self.within))
        both = {(one, other) for one in asked for other in allowed if one.startswith(other) or other.startswith(one)}
        found = {max(pair, key=len) for pair in both}
        return found | {""} if self.relay else found

    def written(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if key != "within"})


def audience_of(written: str, within: str) -> StreamAudience:
    """The audience as the log has it."""
    return StreamAudience(**json.loads(written), within=json.loads(within))


def prefix_of(glob: str) -> str:
    """What every room's name that matches the glob begins with."""
    found = _LITERAL.match(glob)
    return found[0][:LONGEST_PREFIX] if found else ""


def open_lanes_for_audience(
    connection: sa.Connection, sid: int, room: str, participant: str, now: int, *, about: str | None
) -> None:
    """Open the lanes of a new stream to the endpoints made over the API that it concerns."""
    prefixes = [room[:length] for length in range(min(len(room), LONGEST_PREFIX) + 1)]
    candidates = (
        sa.select(api_endpoints.c.name, api_endpoints.c.audience, api_endpoints.c.within)
        .join(endpoints, endpoints.c.name == api_endpoints.c.name)
        .where(
            endpoints.c.active,
            endpoints.c.by_api,
            api_endpoints.c.name.in_(
                sa.select(api_endpoint_rooms.c.endpoint).where(api_endpoint_rooms.c.prefix.in_(prefixes))
            ),
        )
    )
    names = [
        row.name
        for row in connection.execute(candidates)
        if row.name != about and audience_of(row.audience, row.within).hears(room, participant)
    ]
    _insert(connection, [(name, sid, 0) for name in names], now)


def open_lanes_on_open_streams(connection: sa.Connection, name: str, audience: StreamAudience, now: int) -> None:
    """Open the missing lanes of an endpoint to the open streams that concern it, starting now."""
    has_lane = sa.exists().where(lanes.c.sid == streams.c.sid, lanes.c.endpoint == name)
    open_ones = sa.select(streams.c.sid, streams.c.room, streams.c.participant, streams.c.last_sequence).where(
        streams.c.closed_at.is_(None), streams.c.about.is_distinct_from(name), ~has_lane
    )
    found = [
        (name, row.sid, row.last_sequence)
        for row in connection.execute(open_ones)
        if audience.hears(row.room, row.participant)
    ]
    _insert(connection, found, now)


def lanes_by_stream(connection: sa.Connection, which: Collection[int]) -> dict[int, list[str]]:
    """The endpoints made over the API that have a lane on each of these streams."""
    found: dict[int, list[str]] = {stream: [] for stream in which}
    ids = list(which)
    for start in range(0, len(ids), _IDS_PER_QUERY):
        rows = connection.execute(
            sa.select(lanes.c.sid, lanes.c.endpoint)
            .join(endpoints, endpoints.c.name == lanes.c.endpoint)
            .where(lanes.c.sid.in_(ids[start : start + _IDS_PER_QUERY]))
            .where(endpoints.c.active, endpoints.c.by_api)
        )
        for row in rows:
            found[row.sid].append(row.endpoint)
    return found


def due_endpoints(connection: sa.Connection, table: sa.Table, now: int) -> set[str]:
    """The endpoints made over the API for which something in the table is due.

    Steps through the index from endpoint to endpoint: the cost is that of the endpoints with anything scheduled,
    however many lanes or parked events each has.
    """
    scheduled = table.c.next_at.is_not(None)
    first = sa.select(sa.func.min(table.c.endpoint).label("name")).where(scheduled)
    steps = first.cte("steps", recursive=True)
    following = sa.select(sa.func.min(table.c.endpoint)).where(scheduled, table.c.endpoint > steps.c.name)
    steps = steps.union_all(sa.select(following.scalar_subquery()).where(steps.c.name.is_not(None)))
    earliest = sa.select(sa.func.min(table.c.next_at)).where(scheduled, table.c.endpoint == steps.c.name)
    due = (
        sa.select(steps.c.name)
        .join(endpoints, endpoints.c.name == steps.c.name)
        .where(endpoints.c.active, endpoints.c.by_api, endpoints.c.disabled_at.is_(None))
        .where(earliest.correlate(steps).scalar_subquery() <= now)
    )
    return set(connection.execute(due).scalars())


def _insert(connection: sa.Connection, found: Collection[tuple[str, int, int]], now: int) -> None:
    rows = [
        {
            "endpoint": name,
            "sid": sid,
            "cursor": cursor,
            "last_sent": 0,
            "attempts": 0,
            "fence": now,
            "settled_at": now,
        }
        for name, sid, cursor in found
    ]
    if rows:
        connection.execute(sa.insert(lanes), rows)


def _any(text: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)
