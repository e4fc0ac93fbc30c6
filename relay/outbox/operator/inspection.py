"""Reads the log, whether a relay runs on it or not."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from relay.clock import Clock
from relay.outbox.log.endpoints import states
from relay.outbox.log.processes import FleetState, fleet_state
from relay.outbox.log.reader import Reader
from relay.outbox.operator.delivery_pages import DeliveryPosition, deliveries
from relay.outbox.operator.delivery_queries import attempts_behind, event_deliveries, newest_attempt
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
from relay.outbox.schema import dead_letters, endpoints, events, lanes, parked, resends, streams

_ATTEMPTS_AT_ONCE = 1000


class Inspection:
    """Answers queries, and changes nothing. Every method raises ``OutboxError`` if the log cannot be read."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader, self._clock = reader, clock

    async def endpoints(
        self, *, wanted: Wanted, names: Collection[str] | None = None, most: int | None = None
    ) -> list[EndpointView]:
        """Every endpoint that the log knows, or those of these ``names``, by name, and its backlog.

        ``most``: how many events of each backlog are read, beginning with the lanes that are due the longest; all of
        them without it.
        """
        now = self._clock.now_ms()
        return await self._reader.query(lambda connection: endpoint_views(connection, wanted, now, names, most))

    async def endpoint_states(self, names: Collection[str] | None = None) -> dict[str, EndpointState]:
        """Every endpoint that the log knows, or those of these ``names``, by name, and its health."""
        return await self._reader.query(lambda connection: states(connection, names))

    async def fleet(self) -> FleetState:
        """The processes of the relay that run with this log, what each does, and what is being recorded."""
        now = self._clock.now_ms()
        return await self._reader.query(lambda connection: fleet_state(connection, now))

    async def endpoint_names(self) -> list[str]:
        """The names of all endpoints that the log knows."""
        every = sa.select(endpoints.c.name).order_by(endpoints.c.name)
        return await self._reader.query(lambda connection: list(connection.execute(every).scalars()))

    async def deliveries(
        self,
        states: Collection[DeliveryState],
        *,
        wanted: Wanted,
        endpoint: str | None = None,
        since: int = 0,
        limit: int = 50,
    ) -> list[DeliveryView]:
        """At most ``limit`` deliveries that have been in one of these states since ``since`` or later.

        Retrying ones come first, then parked, dead, pending and delivered ones.
        """
        page = self.delivery_page
        found, _ = await page(states, wanted=wanted, endpoint=endpoint, since=since, limit=limit)
        return found

    async def delivery_page(
        self,
        states: Collection[DeliveryState],
        *,
        wanted: Wanted,
        endpoint: str | None = None,
        since: int = 0,
        limit: int,
        after: DeliveryPosition | None = None,
        scan: int | None = None,
    ) -> tuple[list[DeliveryView], DeliveryPosition | None]:
        """The same after a position, and the position after which the next page begins; None on the last.

        ``scan``: how many deliveries are looked at.
        """
        now = self._clock.now_ms()

        def page(connection: sa.Connection) -> tuple[list[DeliveryView], DeliveryPosition | None]:
            found, following = deliveries(
                connection,
                states,
                endpoint=endpoint,
                since=since,
                limit=limit,
                now=now,
                wanted=wanted,
                after=after,
                scan=scan,
            )
            return _as_endpoints_allow(connection, found), following

        return await self._reader.query(page)

    async def delivery(self, event_id: str, *, endpoint: str | None = None) -> EventDeliveries | None:
        """The state of an event for one endpoint or all; None if the log does not have it (any more)."""
        now = self._clock.now_ms()

        def find(connection: sa.Connection) -> EventDeliveries | None:
            found = event_deliveries(connection, event_id, endpoint=endpoint, now=now)
            return found and replace(found, deliveries=tuple(_as_endpoints_allow(connection, found.deliveries)))

        return await self._reader.query(find)

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


def _as_endpoints_allow(connection: sa.Connection, found: Collection[DeliveryView]) -> list[DeliveryView]:
    """The deliveries, each with the next attempt if its endpoint is sent to: never while it is disabled."""
    known = states(connection, {view.endpoint for view in found})

    def next_at(view: DeliveryView) -> int | None:
        state = known.get(view.endpoint)
        if state is None or view.next_at is None:
            return view.next_at
        return None if state.disabled_at is not None else max(view.next_at, state.resting_until or 0)

    return [replace(view, next_at=next_at(view)) for view in found]


# How endpoints stand: their health, and what waits for them.


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
