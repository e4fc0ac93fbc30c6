"""Reads the log, whether a relay runs on it or not."""

from collections.abc import Collection

import sqlalchemy as sa

from relay.clock import Clock
from relay.outbox.log.endpoints import states
from relay.outbox.log.processes import FleetState, fleet_state
from relay.outbox.log.reader import Reader
from relay.outbox.operator.delivery_pages import DeliveryPosition, deliveries
from relay.outbox.operator.delivery_queries import attempts_behind, event_deliveries, newest_attempt
from relay.outbox.operator.endpoint_views import endpoint_views
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
from relay.outbox.schema import endpoints

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
        limit: int = 50,
        after: DeliveryPosition | None = None,
        scan: int | None = None,
    ) -> tuple[list[DeliveryView], DeliveryPosition | None]:
        """The same after a position, and the position after which the next page begins; None on the last.

        ``scan``: how many deliveries are looked at.
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
                after=after,
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
