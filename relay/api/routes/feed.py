"""Events as they are appended: server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from relay.api.access import Viewer
from relay.api.appends import Appends, Grown
from relay.api.backend import Backend, Sight, sender
from relay.api.problems import OF_API, Problem, documented
from relay.api.routes.events import CURSOR, As, Glob, cursor_of, filtered, position
from relay.outbox.operator.event_feed import EventFeed, Found
from relay.outbox.operator.event_pages import Position, Selection
from relay.outbox.operator.views import EventView

MOST_STREAMS = 8
MOST_OF_ONE = 4
"""Streams of one endpoint's tokens, or of one tenant's."""
FOR_OPERATORS = 2
"""Streams that are left to operators, however many others there are."""
OLDEST_MS = 3_600_000
"""How long ago a stream may have ended to be resumed."""
OVERLAP_MS = 15_000
"""A resumed stream begins this long before its position: of two writers, the one with the earlier times may have
committed later. It is above the time for which an append is retried."""
AT_ONCE = 200
SWEEP_S = 2.0
"""Between two looks at every stream in the log: a ring may be lost."""
POLL_S = 0.5
"""The same without a doorbell."""
GAP_S = 0.04
"""Between two messages while the log grows: what is appended meanwhile is sent together."""
MANY = 8
"""Events in one message that make the next one wait longer: the cost is that of the message, not of its events."""
GAP_OF_MANY_S = 0.1
KEEP_ALIVE_S = 15.0
SLOWEST_S = 20.0
"""Time for a reader to take what was sent before it is disconnected."""

LastEventId = Annotated[
    str | None, Header(pattern=CURSOR, description="The `id` of the last event of an earlier stream, to resume it.")
]


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["events"], responses=documented((*OF_API, 409)))
    open_streams: dict[object, Viewer] = {}

    @routes.get(
        "/events/stream",
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def follow_events(
        request: Request,
        room: Annotated[Glob, Query(description="Only rooms of such a name; a glob.")] = "*",
        participant: Annotated[Glob, Query(description="Only participants of such an identity; a glob.")] = "*",
        type: Annotated[Glob, Query(description="Only such types: `transcript.*`.")] = "*",  # noqa: A002 - the API's name
        last_event_id: LastEventId = None,
        endpoint: As = None,
    ) -> Response:
        """Events as they are appended, in order within each stream, as server-sent events. `data` is the event, and the
        message's `id` is its place, by which to resume.

        While nothing is appended, a comment comes every 15 s. Resumed by `Last-Event-ID`, a stream repeats some
        seconds: drop events by the `id` in `data`. After more than an hour it cannot be resumed: 409. A reader that
        does not take what is sent within 20 s is disconnected. A change of the endpoint applies to what follows; if it
        is removed, the stream ends.
        """

        def selected(sight: Sight) -> Selection:
            return filtered(sight, room, participant, type)

        sight = backend.sight(request, endpoint)
        resumed = position(last_event_id)
        if resumed is not None and resumed.at < backend.clock.now_ms() - OLDEST_MS:
            raise Problem(
                409, "The stream ended more than an hour ago: read /v1/events or the events of each stream instead."
            )
        viewer = sender(request)
        if backend.stop.is_set() or _too_many(viewer, list(open_streams.values())):
            raise Problem(
                503,
                "The relay stops, or too many streams are open already.",
                headers={"Retry-After": "5"},
            )
        if request.state.head:
            return Response(media_type="text/event-stream")
        this = object()
        open_streams[this] = viewer
        try:
            feed = await backend.log.browsing.feed(
                selected(sight), since=None if resumed is None else max(0, resumed.at - OVERLAP_MS)
            )
        except BaseException:
            del open_streams[this]
            raise
        request.state.connection.stream()
        rights = _Rights(sight, lambda former: backend.renewed(request, former), selected)
        return _Feed(_told(backend, feed, rights), ended=lambda: open_streams.pop(this, None))

    return routes


def _too_many(viewer: Viewer, others: list[Viewer]) -> bool:
    """Whether this viewer may open no stream beside those of the others: they must not keep operators out."""
    if len(others) >= MOST_STREAMS:
        return True
    if viewer.is_operator:
        return False
    bound = [other for other in others if not other.is_operator]
    own = [other for other in bound if (other.endpoint, other.tenant) == (viewer.endpoint, viewer.tenant)]
    return len(bound) >= MOST_STREAMS - FOR_OPERATORS or len(own) >= MOST_OF_ONE


class _Feed(StreamingResponse):
    """A stream of events that ends with its reader, or because the reader is slow."""

    def __init__(self, content: AsyncIterator[bytes], ended: Callable[[], object]) -> None:
        super().__init__(content, media_type="text/event-stream")
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def in_time(message: object) -> None:
            async with asyncio.timeout(SLOWEST_S):
                await send(message)  # type: ignore[arg-type]

        try:
            with suppress(TimeoutError):
                await super().__call__(scope, receive, in_time)
                return
            scope["state"]["connection"].transport.abort()
        finally:
            self._ended()


class _Rights:
    """What the reader of a stream may see, as it is now and not as it was when the stream was opened."""

    def __init__(self, sight: Sight, renewed: Callable[[Sight], Sight], selected: Callable[[Sight], Selection]) -> None:
        """``renewed`` gives the same sight if nothing has changed, and raises :class:`Problem` if nothing is left."""
        self.sight, self._renewed, self._selected = sight, renewed, selected

    def apply(self, feed: EventFeed) -> bool:
        """Whether anything may be seen still; what may not be is followed no more."""
        try:
            now = self._renewed(self.sight)
        except Problem:
            return False
        if now is not self.sight:
            self.sight = now
            feed.select(self._selected(now))
        return True


async def _told(backend: Backend, feed: EventFeed, rights: _Rights) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    loop, sweep_s = asyncio.get_running_loop(), POLL_S if backend.appends is None else SWEEP_S
    said_at = swept_at = loop.time()
    with (backend.appends or Appends(backend.stop)).followed() as follower:
        grown: Grown | None = None
        while not backend.stop.is_set() and rights.apply(feed):
            began = loop.time()
            if grown is None or began - swept_at >= sweep_s:
                swept_at = began
                found, more = await backend.log.browsing.fed(feed, AT_ONCE)
            else:
                found, more = await _next(backend, feed, grown)
            if not rights.apply(feed):  # they may have changed while the log was read
                return
            if shown := [_message(at, view, rights.sight) for at, view in found if feed.shows(view)]:
                yield b"".join(shown)
                said_at = loop.time()
            elif loop.time() - said_at >= KEEP_ALIVE_S:
                said_at = loop.time()
                yield b": nothing new\n\n"
            if more:
                grown = None
            else:
                gap_s = GAP_S if len(found) < MANY else GAP_OF_MANY_S
                await _pause(backend.stop, began + gap_s - loop.time())
                grown = await follower.grown(max(0.0, swept_at + sweep_s - loop.time()))


async def _next(backend: Backend, feed: EventFeed, grown: Grown) -> tuple[Found, bool]:
    """The feed's next events: what the doorbell has brought, and where it has not brought everything, from the log."""
    found, unread = feed.take(grown)
    if not unread:
        return found, False
    rest, more = await backend.log.browsing.fed(feed, AT_ONCE, unread)
    return [*found, *rest], more


def _message(at: Position, view: EventView, sight: Sight) -> bytes:
    return b"id: %s\ndata: %s\n\n" % ((cursor_of(at) or "").encode(), sight.body(view.body))


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stop.wait()
