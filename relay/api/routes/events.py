"""Events: of one stream, of all, one alone, and an utterance with everything about it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from relay.api.answers import (
    AnswerModel,
    DeliveryEntry,
    EventAttempt,
    Events,
    LoggedEvent,
    StreamEvents,
    StreamInfo,
    iso,
)
from relay.api.backend import Backend, Sight, sender
from relay.api.problems import OF_API, Problem, documented
from relay.clock import epoch_ms
from relay.config.fields import Moment
from relay.outbox.operator.event_pages import EventPage, Position, Selection
from relay.outbox.operator.event_queries import EventFilter
from relay.outbox.operator.views import EventView

LARGEST = 2**53
CURSOR = r"^[0-9]{1,15}\.[0-9]{1,15}\.[0-9]{1,15}$"

EventId = Annotated[str, Path(min_length=1, max_length=128, description="The event's id: its webhook-id.")]
StreamId = Annotated[str, Path(min_length=1, max_length=64, description="`stream.id` of an event.")]
Glob = Annotated[str, Query(max_length=256)]
Since = Annotated[Moment | None, Query(description="Only what was appended then or later.")]
As = Annotated[
    str | None,
    Query(max_length=64, description="Only what this endpoint receives. A tenant's token with several must name one."),
]
Cursor = Annotated[str | None, Query(pattern=CURSOR, description="`next` of the page before.")]
UtteranceId = Annotated[str, Path(min_length=1, max_length=64, description="`utterance.id` of an event.")]
Requested = Annotated[
    str | None, Query(max_length=64, description="The event as this endpoint gets it: its part, in its format.")
]


class UtteranceDetail(AnswerModel):
    id: str
    stream_id: str
    room: str
    participant: str
    events: list[LoggedEvent]
    """In order: the first 200."""
    deliveries: list[DeliveryEntry]
    """One for each event and endpoint, by endpoint."""
    attempts: list[EventAttempt]
    """In order."""


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["events"], responses=documented(OF_API))
    missing = documented((404,))

    @routes.get("/streams/{stream_id}/events", responses={200: {"model": StreamEvents}, **missing})
    async def list_stream_events(
        request: Request,
        stream_id: StreamId,
        after: Annotated[int, Query(ge=0, le=LARGEST, description="The sequence before the first event.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        type: Annotated[Glob, Query(description="Only such types: `transcript.*`.")] = "*",  # noqa: A002 - the API's name
        endpoint: As = None,
    ) -> Response:
        """The events of a stream after a sequence, in order: what a receiver has missed.

        Interims are left out once they have expired, and what was purged too.
        """
        sight = backend.sight(request, endpoint)
        which = sight.selection(types=sight.types(type))
        page = await backend.log.browsing.stream(stream_id, which, after=after, limit=limit)
        if page is None:
            raise Problem(404, "The log has no such stream, or has it no longer.")
        stream = StreamInfo(
            id=page.stream_id,
            room=page.room,
            participant=page.participant,
            closed=page.closed,
            first_sequence=page.first_sequence,
            last_sequence=page.last_sequence,
        )
        bodies = await asyncio.to_thread(_bodies, page.events, sight)
        head = b'{"stream":%s,"events":[' % stream.model_dump_json().encode()
        return _json(head + bodies + b'],"next":%s}' % json.dumps(page.next).encode())

    @routes.get("/events", responses={200: {"model": Events}})
    async def list_events(
        request: Request,
        room: Annotated[Glob, Query(description="Only rooms of such a name; a glob.")] = "*",
        participant: Annotated[Glob, Query(description="Only participants of such an identity; a glob.")] = "*",
        type: Annotated[Glob, Query(description="Only such types: `transcript.*`.")] = "*",  # noqa: A002 - the API's name
        since: Since = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Cursor = None,
        endpoint: As = None,
    ) -> Response:
        """The newest events of all streams."""
        sight = backend.sight(request, endpoint)
        page = await backend.log.browsing.events(
            filtered(sight, room, participant, type),
            before=position(cursor),
            since=0 if since is None else epoch_ms(since),
            limit=limit,
        )
        return _json(await asyncio.to_thread(_page, page, sight))

    @routes.get("/events/{event_id}", responses=missing)
    async def get_event(request: Request, event_id: EventId, endpoint: Requested = None) -> LoggedEvent:
        """An event by its id."""
        sight = backend.sight(request, endpoint)
        found = await backend.log.browsing.event(event_id, sight.selection(types=sight.types("*")))
        if found is None:
            raise Problem(404, "The log has no such event, or has it no longer.")
        return LoggedEvent.model_validate(shown(found, sight))

    @routes.get("/streams/{stream_id}/utterances/{utterance_id}", responses=missing)
    async def get_utterance(
        request: Request, stream_id: StreamId, utterance_id: UtteranceId, endpoint: As = None
    ) -> UtteranceDetail:
        """Everything about an utterance: its events, and every delivery and attempt of each."""
        sight, viewer = backend.sight(request, endpoint), sender(request)
        which, now = sight.selection(types=sight.types("*")), backend.clock.now_ms()
        found = await backend.log.browsing.utterance(stream_id, utterance_id, which, now=now)
        if found is None:
            raise Problem(404, "The log has no such utterance, or has it no longer.")
        return UtteranceDetail(
            id=utterance_id,
            stream_id=found.stream_id,
            room=found.room,
            participant=found.participant,
            events=[LoggedEvent.model_validate(shown(view, sight)) for view in found.events],
            deliveries=[DeliveryEntry.of(view, viewer) for view in found.deliveries],
            attempts=[EventAttempt.of(view, viewer) for view in found.attempts],
        )

    return routes


def filtered(sight: Sight, room: str, participant: str, pattern: str) -> Selection:
    """What the globs ask for, of what may be seen."""
    which = EventFilter(room, participant)
    return Selection(
        lambda name, identity: which.stream(name, identity) and sight.stream(name, identity),
        sight.types(pattern),
        sight.endpoint,
    )


def position(cursor: str | None) -> Position | None:
    return None if cursor is None else Position(*map(int, cursor.split(".")))


def cursor_of(at: Position | None) -> str | None:
    return None if at is None else ".".join(map(str, at))


def _bodies(views: Sequence[EventView], sight: Sight) -> bytes:
    return b",".join(sight.body(view.body) for view in views)


def _page(page: EventPage, sight: Sight) -> bytes:
    events = b",".join(_event(view, sight) for view in page.events)
    return b'{"events":[%s],"next":%s}' % (events, json.dumps(cursor_of(page.next)).encode())


def shown(view: EventView, sight: Sight) -> dict[str, Any]:
    """The event as it may be seen, for ``LoggedEvent``."""
    body = sight.body(view.body)
    return {**_known(view), "event": json.loads(body) if body else None}


def _event(view: EventView, sight: Sight) -> bytes:
    known = json.dumps(_known(view)).encode()
    return b'%s,"event":%s}' % (known[:-1], sight.body(view.body) or b"null")


def _known(view: EventView) -> dict[str, Any]:
    return {
        "id": view.id,
        "type": view.type,
        "emitted_at": iso(view.emitted_at),
        "room": view.room,
        "participant": view.participant,
        "stream_id": view.stream_id,
        "sequence": view.sequence,
    }


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
