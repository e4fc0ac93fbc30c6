"""Rooms, and what was said in them."""

import asyncio
import base64
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response

from relay.api.answers import Room, RoomDetail, Rooms, Transcript, TranscriptLine, iso
from relay.api.backend import Backend
from relay.api.problems import OF_API, Problem, documented, strange_cursor
from relay.api.routes.events import As, Cursor, cursor_of, position
from relay.clock import epoch_ms
from relay.outbox.operator.event_pages import Selection
from relay.outbox.operator.views import EventView

_UTTERANCE = "utterance.completed"
RoomName = Annotated[str, Path(min_length=1, max_length=1024, description="The room's name.")]
Sid = Annotated[str | None, Query(max_length=128, description="The sid of a session other than the newest.")]


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["rooms"], responses=documented(OF_API))
    missing = documented((404,))

    @routes.get("/rooms")
    async def list_rooms(
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
    async def get_transcript(
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
        if not request.scope["raw_path"].endswith(b"/transcript"):  # …%2Ftranscript: the end of a room's name
            detail = await get_room(request, f"{name}/transcript", sid, endpoint)
            return Response(detail.model_dump_json(), media_type="application/json")
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
    async def get_room(request: Request, name: RoomName, sid: Sid = None, endpoint: As = None) -> RoomDetail:
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
    if type(at) is not int or abs(at) >= 2**53 or not isinstance(name, str):
        raise strange_cursor()
    return at, name


# A transcript as lines, text and WebVTT.


def line(view: EventView) -> TranscriptLine | None:
    """The line of an ``utterance.completed``; None if nothing was said, or it is gone."""
    if not view.body:
        return None
    event = json.loads(view.body)
    data, timing = event["data"], event["timing"]
    text = " ".join((data.get("text") or "").split())
    if not text:
        return None
    occurred_at = timing["occurred_at"]
    end = epoch_ms(datetime.fromisoformat(occurred_at)) if occurred_at else view.emitted_at
    return TranscriptLine(
        participant=view.participant,
        name=event["participant"]["name"] or "",
        started_at=iso(end - (data.get("duration_ms") or 0)),
        ended_at=iso(end),
        text=text,
        language=data.get("language"),
        event_id=view.id,
        utterance_id=event["utterance"]["id"],
        revision=event["utterance"]["revision"],
    )


def as_text(lines: Sequence[TranscriptLine]) -> str:
    """``2026-11-21T10:15:05.100Z Alice: Hello world.``"""
    return "".join(f"{each.started_at} {_one_line(_speaker(each))}: {each.text}\n" for each in lines)


def as_vtt(lines: Sequence[TranscriptLine], began_at: int) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/) with a voice for each participant, timed from ``began_at``."""
    cues = ["WEBVTT\n"]
    for each in lines:
        start, end = (_since(moment, began_at) for moment in (each.started_at, each.ended_at))
        speaker = _escaped(_one_line(_speaker(each)))
        cues.append(f"{_stamp(start)} --> {_stamp(max(end, start + 1))}\n<v {speaker}>{_escaped(each.text)}</v>\n")
    return "\n".join(cues)


def _speaker(each: TranscriptLine) -> str:
    return each.name or each.participant


def _since(moment: str, began_at: int) -> int:
    return max(0, epoch_ms(datetime.fromisoformat(moment)) - began_at)


def _stamp(milliseconds: int) -> str:
    whole, millis = divmod(timedelta(milliseconds=milliseconds), timedelta(seconds=1))
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{millis // timedelta(milliseconds=1):03}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
