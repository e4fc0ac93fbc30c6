"""Reads the log page by page, for the HTTP API."""

from collections.abc import Collection

from relay.outbox.log.reader import Reader
from relay.outbox.operator.event_feed import EventFeed
from relay.outbox.operator.event_pages import (
    EventPage,
    Position,
    Selection,
    StreamPage,
    events_before,
    stream_page,
)
from relay.outbox.operator.rooms import RoomView, find_room, rooms
from relay.outbox.operator.views import EventView


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

    async def fed(
        self, feed: EventFeed, limit: int, grown: Collection[int] | None = None
    ) -> tuple[list[tuple[Position, EventView]], bool]:
        """The feed's next events, and whether there may be more at once. ``grown``: only of these streams."""
        return await self._reader.query(lambda connection: feed.more(connection, limit, grown))

    async def rooms(
        self, which: Selection, *, before: tuple[int, str] | None, limit: int
    ) -> tuple[list[RoomView], tuple[int, str] | None]:
        """A page of the rooms, and the ``before`` of the next."""
        return await self._reader.query(lambda connection: rooms(connection, which, before=before, limit=limit))

    async def room(self, name: str, which: Selection, *, sid: str | None = None) -> RoomView | None:
        """A room by name, in its newest session or the one of ``sid``; None if nothing of it may be seen."""
        return await self._reader.query(lambda connection: find_room(connection, name, which, sid=sid))
