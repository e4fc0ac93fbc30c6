"""Rooms, and what was said in them."""

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response

from relay.api.answers import Room, RoomDetail, Rooms, Transcript, TranscriptLine
from relay.api.backend import Backend
from relay.api.problems import OF_API, Problem, documented
from relay.api.routes.events import As, Cursor, cursor_of, position
from relay.api.transcript import as_text, as_vtt, line
from relay.outbox.operator.event_pages import Selection
from relay.outbox.operator.views import EventView

_UTTERANCE = "utterance.completed"
RoomName = Annotated[str, Path(min_length=1, max_length=1024, description="The room's name.")]
Sid = Annotated[str | None, Query(max_length=128, description="The sid of a session other than the newest.")]


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["rooms"], responses=documented(OF_API))
    missing = documented((404,))

    @routes.get("/rooms")
    async def rooms(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query(max_length=2048, description="`next` of the page before.")] = None,
        endpoint: As = None,
    ) -> Rooms:
        """The rooms that the log knows."""
        which = backend.sight(request, endpoint).selection()
        found, following = await backend.log.browsing.rooms(which, before=_decoded(cursor), limit=limit)
        return Rooms(rooms=[Room.of(view) for view in found], next=_encoded(following))

    @routes.get(
        "/rooms/{name:path}/transcript",
        responses={
            200: {
                "model": Transcript,
                "content": {
                    "text/plain": {"schema": {"type": "string"}},
                    "text/vtt": {"schema": {"type": "string"}},
                },
                "headers": {"Link": {"description": "rel=next: earlier lines", "schema": {"type": "string"}}},
            },
            **missing,
        },
    )
    async def transcript(
        request: Request,
        name: RoomName,
        format: Annotated[  # noqa: A002 - the API's name
            Literal["json", "text", "vtt"], Query(description="vtt: WebVTT, timed from the start of the session.")
        ] = "json",
        sid: Sid = None,
        limit: Annotated[int, Query(ge=1, le=2000, description="How many lines at most: the newest.")] = 1000,
        cursor: Cursor = None,
        endpoint: As = None,
    ) -> Response:
        """What was said in a session of a room, by utterance. Earlier versions of revised utterances are included."""
        sight = backend.sight(request, endpoint)
        if not sight.shows_text or sight.types(_UTTERANCE) == []:
            raise Problem(403, f"The endpoint of this token does not receive the text of {_UTTERANCE}.")
        room = await backend.log.browsing.room(name, sight.selection(room=name), sid=sid)
        if room is None:
            raise _no_room()
        which = Selection(sight.stream, [_UTTERANCE], sight.endpoint, name, room.sid)
        page = await backend.log.browsing.events(which, before=position(cursor), since=0, limit=limit)
        lines = await asyncio.to_thread(_lines, page.events)
        following = cursor_of(page.next)
        headers = {}
        if following is not None:
            query = f"format={format}&sid={quote(room.sid)}&limit={limit}&cursor={following}"
            query += "" if endpoint is None else f"&endpoint={quote(endpoint)}"
            headers["Link"] = f'</v1/rooms/{quote(name)}/transcript?{query}>; rel="next"'
        if format == "json":
            answer = Transcript(room=name, sid=room.sid, lines=lines, next=following)
            return Response(answer.model_dump_json(), media_type="application/json", headers=headers)
        if format == "text":
            return Response(as_text(lines), media_type="text/plain", headers=headers)
        return Response(as_vtt(lines, room.opened_at), media_type="text/vtt", headers=headers)

    @routes.get("/rooms/{name:path}", responses=missing)
    async def room(request: Request, name: RoomName, sid: Sid = None, endpoint: As = None) -> RoomDetail:
        """A room, and the streams of its newest session."""
        sight = backend.sight(request, endpoint)
        found = await backend.log.browsing.room(name, sight.selection(room=name), sid=sid)
        if found is None:
            raise _no_room()
        return RoomDetail.of(found)

    return routes


def _lines(views: Sequence[EventView]) -> list[TranscriptLine]:
    return sorted((each for view in views if (each := line(view))), key=lambda each: each.started_at)


def _no_room() -> Problem:
    return Problem(404, "The log has no such room, or has it no longer.")


def _encoded(before: tuple[int, str] | None) -> str | None:
    return None if before is None else base64.urlsafe_b64encode(json.dumps(before).encode()).decode()


def _decoded(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    try:
        at, name = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError, RecursionError):
        at, name = None, None
    if type(at) is not int or abs(at) >= 2**53 or not isinstance(name, str) or not name.isprintable():
        wrong = [{"where": "query.cursor", "what": "is not the `next` of a page"}]
        raise Problem(422, "The cursor is not one of this list.", errors=wrong)
    return at, name
