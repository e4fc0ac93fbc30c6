"""Reads the log page by page, for the HTTP API."""

from collections.abc import Callable, Collection

from relay.outbox.log.reader import Reader
from relay.outbox.operator.delivery_queries import attempt_counts, attempts_before
from relay.outbox.operator.event_feed import EventFeed, Found
from relay.outbox.operator.event_pages import (
    EventPage,
    Position,
    Selection,
    StreamPage,
    events_before,
    find_utterance,
    stream_page,
)
from relay.outbox.operator.event_queries import find_event
from relay.outbox.operator.rooms import RoomView, find_room, rooms
from relay.outbox.operator.views import AttemptCount, AttemptView, EventView, UtteranceView


class Browsing:
    """Answers queries, and changes nothing. Every method raises ``OutboxError`` if the log cannot be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def stream(self, stream_id: str, which: Selection, *, after: int, limit: int) -> StreamPage | None:
        """A stream's events after a sequence, in order; None if there is no such stream to see."""
        return await self._reader.query(
            lambda connection: stream_page(connection, stream_id, which, after=after, limit=limit)
        )

    async def events(self, which: Selection, *, before: Position | None, since: int, limit: int) -> EventPage:
        """A page of the events of all streams, newest first."""
        return await self._reader.query(
            lambda connection: events_before(connection, which, before=before, since=since, limit=limit)
        )

    async def feed(self, which: Selection, *, since: int | None) -> EventFeed:
        """A feed that begins with what was appended at ``since``, or without it, with what comes."""
        return await self._reader.query(lambda connection: EventFeed(connection, which, since))

    async def fed(self, feed: EventFeed, limit: int, grown: Collection[int] | None = None) -> tuple[Found, bool]:
        """The feed's next events, and whether there may be more at once. ``grown``: only of these streams."""
        return await self._reader.query(lambda connection: feed.read(connection, limit, grown))

    async def rooms(
        self, which: Selection, *, before: tuple[int, str] | None, limit: int
    ) -> tuple[list[RoomView], tuple[int, str] | None]:
        """A page of the rooms, and the ``before`` of the next."""
        return await self._reader.query(lambda connection: rooms(connection, which, before=before, limit=limit))

    async def room(self, name: str, which: Selection, *, sid: str | None = None) -> RoomView | None:
        """A room by name, in its newest session or the one of ``sid``; None if nothing of it may be seen."""
        return await self._reader.query(lambda connection: find_room(connection, name, which, sid=sid))

    async def event(self, event_id: str, which: Selection) -> EventView | None:
        """An event by its id; None if the log does not have it, or it may not be seen."""
        found = await self._reader.query(lambda connection: find_event(connection, event_id))
        event = found[1] if found else None
        seen = event is not None and which.stream(event.room, event.participant) and which.wants(event.type)
        return event if seen else None

    async def utterance(self, stream_id: str, utterance: str, which: Selection, *, now: int) -> UtteranceView | None:
        """An utterance of a stream with its deliveries; None if nothing of it may be seen."""
        return await self._reader.query(
            lambda connection: find_utterance(connection, stream_id, utterance, which, now=now)
        )

    async def attempts(
        self, *, before: int | None, endpoint: str | None, ok: bool | None, limit: int, scan: int,
        seen: Callable[[str, str], bool] = lambda endpoint, room: True,
    ) -> tuple[list[AttemptView], int | None]:  # fmt: skip
        """A page of the attempts, newest first, and the ``before`` of the next. ``seen``: by endpoint and room, which
        of them are shown."""
        return await self._reader.query(
            lambda connection: attempts_before(
                connection, before, endpoint=endpoint, ok=ok, limit=limit, scan=scan, seen=seen
            )
        )

    async def attempt_counts(
        self, *, endpoint: str | None, since: int, step: int, scan: int
    ) -> tuple[list[AttemptCount], int]:
        """The attempts since, by endpoint and period, and from when on all are counted."""
        return await self._reader.query(
            lambda connection: attempt_counts(connection, endpoint=endpoint, since=since, step=step, scan=scan)
        )
