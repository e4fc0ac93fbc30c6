"""Reads the log, whether a relay runs on it or not."""

from collections import Counter
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from relay.clock import Clock
from relay.outbox.log.endpoints import states
from relay.outbox.log.reader import Reader
from relay.outbox.log.service_state import OpenStreams, ServiceState, open_streams, read_state
from relay.outbox.operator.delivery_queries import attempts_behind, deliveries, event_deliveries, newest_attempt
from relay.outbox.operator.event_queries import EventFilter, EventTail, find_event, newest_events
from relay.outbox.operator.views import (
    AttemptView,
    DeliveryState,
    DeliveryView,
    EndpointView,
    EventDeliveries,
    EventView,
    Wanted,
)
from relay.outbox.records import EndpointState
from relay.outbox.schema import dead_letters, events, lanes, parked, resends, streams

_ATTEMPTS_AT_ONCE = 1000


class Inspection:
    """Answers queries, and changes nothing. Every method raises ``OutboxError`` if the log cannot be read."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader, self._clock = reader, clock

    async def endpoints(self, *, wanted: Wanted) -> list[EndpointView]:
        """Every endpoint that the log knows, by name, and its backlog: every event behind is read."""
        now = self._clock.now_ms()
        return await self._reader.query(lambda connection: _endpoint_views(connection, wanted, now))

    async def endpoint_states(self) -> dict[str, EndpointState]:
        """Every endpoint that the log knows, by name, and its health."""
        return await self._reader.query(states)

    async def service(self) -> ServiceState | None:
        """The status of the service's newest run; None if none has run with this log."""
        return await self._reader.query(read_state)

    async def open_streams(self) -> OpenStreams:
        """How many tracks are being recorded."""
        now = self._clock.now_ms()
        return await self._reader.query(lambda connection: open_streams(connection, now))

    async def endpoint_names(self) -> list[str]:
        """The names of all endpoints that the log knows."""
        return list(await self._reader.query(states))

    async def deliveries(
        self,
        states: Collection[DeliveryState],
        *,
        wanted: Wanted,
        endpoint: str | None = None,
        since: int = 0,
        limit: int = 50,
        skip: int = 0,
        scan: int | None = None,
    ) -> list[DeliveryView]:
        """At most ``limit`` deliveries, after the first ``skip``, that have been in one of these states since ``since``
        or later.

        Retrying ones come first, then parked, dead, pending and delivered ones. ``scan``: how many are looked at.
        """
        now = self._clock.now_ms()
        return await self._reader.query(
            lambda connection: deliveries(
                connection,
                states,
                endpoint=endpoint,
                since=since,
                limit=limit,
                now=now,
                wanted=wanted,
                skip=skip,
                scan=scan,
            )
        )

    async def delivery(self, event_id: str, *, endpoint: str | None = None) -> EventDeliveries | None:
        """The state of an event for one endpoint or all; None if the log does not have it (any more)."""
        now = self._clock.now_ms()
        return await self._reader.query(
            lambda connection: event_deliveries(connection, event_id, endpoint=endpoint, now=now)
        )

    async def newest_attempt(self) -> int:
        """The number of the newest recorded attempt, 0 if none: the start of a tail."""
        return await self._reader.query(newest_attempt)

    async def attempts(self, *, behind: int, endpoint: str | None = None) -> list[AttemptView]:
        """Attempts recorded after this number, in order; not all at once if there are many."""
        return await self._reader.query(
            lambda connection: attempts_behind(connection, behind, endpoint, _ATTEMPTS_AT_ONCE)
        )

    async def events(self, which: EventFilter, *, since: int = 0, limit: int = 50) -> list[EventView]:
        """At most ``limit`` events appended at ``since`` or later, newest first."""
        return await self._reader.query(lambda connection: newest_events(connection, which, since, limit))

    async def event(self, event_id: str) -> EventView | None:
        """The event with this id; None if the log does not have it (any more)."""
        found = await self._reader.query(lambda connection: find_event(connection, event_id))
        return found[1] if found else None

    async def tail(self, which: EventFilter) -> EventTail:
        """The current end of the log."""
        return await self._reader.query(lambda connection: EventTail(connection, which))

    async def appended(self, tail: EventTail) -> list[EventView]:
        """The events appended since the tail was last read, in order within each stream."""
        return await self._reader.query(tail.more)


def _endpoint_views(connection: sa.Connection, wanted: Wanted, now: int) -> list[EndpointView]:
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
