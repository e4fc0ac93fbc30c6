"""Looking into the log, whether a relay runs on it or not."""

from collections.abc import Collection

from relay.clock import Clock
from relay.outbox.log.endpoints import states
from relay.outbox.log.reader import Reader
from relay.outbox.log.service_state import OpenStreams, ServiceState, open_streams, read_state
from relay.outbox.operator.delivery_queries import attempts_behind, deliveries, event_deliveries, newest_attempt
from relay.outbox.operator.endpoint_queries import endpoint_views
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

_ATTEMPTS_AT_ONCE = 1000


class Inspection:
    """Answers questions, and changes nothing. Every method raises ``OutboxError`` when the log cannot be read."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader, self._clock = reader, clock

    async def endpoints(self, *, wanted: Wanted) -> list[EndpointView]:
        """Every endpoint that the log knows, by name, and what waits for it: every event behind is looked at."""
        now = self._clock.now_ms()
        return await self._reader.query(lambda connection: endpoint_views(connection, wanted, now))

    async def endpoint_states(self) -> dict[str, EndpointState]:
        """Every endpoint that the log knows, by name, and how it is doing."""
        return await self._reader.query(states)

    async def service(self) -> ServiceState | None:
        """What the newest run of the service has said of itself; None where none has run with this log."""
        return await self._reader.query(read_state)

    async def open_streams(self) -> OpenStreams:
        """How many tracks are recorded now."""
        now = self._clock.now_ms()
        return await self._reader.query(lambda connection: open_streams(connection, now))

    async def endpoint_names(self) -> list[str]:
        """Every endpoint that the log knows, and nothing about it."""
        return list(await self._reader.query(states))

    async def deliveries(
        self,
        states: Collection[DeliveryState],
        *,
        wanted: Wanted,
        endpoint: str | None = None,
        since: int = 0,
        limit: int = 50,
    ) -> list[DeliveryView]:
        """At most ``limit`` deliveries that are in one of these states, and have been since ``since`` or later.

        Retrying ones come first, then parked, dead, pending and delivered ones.
        """
        now = self._clock.now_ms()
        return await self._reader.query(
            lambda connection: deliveries(
                connection, states, endpoint=endpoint, since=since, limit=limit, now=now, wanted=wanted
            )
        )

    async def delivery(self, event_id: str, *, endpoint: str | None = None) -> EventDeliveries | None:
        """What became of an event, for one endpoint or all; None where the log does not have it (any more)."""
        now = self._clock.now_ms()
        return await self._reader.query(
            lambda connection: event_deliveries(connection, event_id, endpoint=endpoint, now=now)
        )

    async def newest_attempt(self) -> int:
        """The number of the newest attempt on record, 0 for none: where a tail begins."""
        return await self._reader.query(newest_attempt)

    async def attempts(self, *, behind: int, endpoint: str | None = None) -> list[AttemptView]:
        """Attempts that were recorded behind the one of this number, in order; not all at once when there are many."""
        return await self._reader.query(
            lambda connection: attempts_behind(connection, behind, endpoint, _ATTEMPTS_AT_ONCE)
        )

    async def events(self, which: EventFilter, *, since: int = 0, limit: int = 50) -> list[EventView]:
        """At most ``limit`` events that were appended at ``since`` or later, newest first."""
        return await self._reader.query(lambda connection: newest_events(connection, which, since, limit))

    async def event(self, event_id: str) -> EventView | None:
        """The event of this id; None where the log does not have it (any more)."""
        found = await self._reader.query(lambda connection: find_event(connection, event_id))
        return found[1] if found else None

    async def tail(self, which: EventFilter) -> EventTail:
        """Where the log ends now."""
        return await self._reader.query(lambda connection: EventTail(connection, which))

    async def appended(self, tail: EventTail) -> list[EventView]:
        """What was appended since the tail was asked last, in order within each stream."""
        return await self._reader.query(tail.more)
