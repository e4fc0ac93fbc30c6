"""Serves the live page, and lets it join a room.

Its files are in the folder ``api/page``, and everything they load is in it too.
"""

import secrets
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import ConfigDict, Field

from relay.api.answers import AnswerModel
from relay.api.backend import Playground, operator
from relay.api.problems import OF_API, Problem, documented
from relay.documented import Documented

FOLDER = Path(__file__).parents[1] / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def page(*, livekit: str | None = None) -> APIRouter:
    """``/`` and ``/page/…``, which contain nothing secret: what is shown, the page asks /v1 for.

    ``livekit``: the URL of a LiveKit server that the page may connect to.
    """
    routes = APIRouter(include_in_schema=False)
    files = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in _TYPES}
    headers = {"Content-Security-Policy": _policy(livekit)}

    def answer(name: str) -> FileResponse:
        path = files.get(name)
        if path is None:
            raise Problem(404, "Nothing is at this path; /openapi.json lists what there is.")
        return FileResponse(path, media_type=_TYPES[path.suffix], headers=headers)

    @routes.get("/")
    async def index() -> FileResponse:
        return answer("index.html")

    @routes.get("/page/{name:path}")
    async def file(name: str) -> FileResponse:
        return answer(name)

    return routes


def _policy(livekit: str | None) -> str:
    connect = ["'self'", *_origins(livekit)]
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {' '.join(connect)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _origins(url: str | None) -> list[str]:
    """A LiveKit server's own, for its WebSocket, and for the requests that explain why that failed."""
    if url is None:
        return []
    place = urlsplit(url)
    schemes = ("wss", "https") if place.scheme in ("wss", "https") else ("ws", "http")
    return [f"{scheme}://{place.netloc}" for scheme in schemes]


# The page can join a room with a browser's microphone.

PREFIX = "playground-"
_OTHERS = (413, 415)


class PlaygroundOrder(Documented):
    model_config = ConfigDict(extra="forbid")

    room: str = Field(default="", max_length=32, pattern=r"^[a-z0-9-]*$")
    """What follows ``playground-`` in the room's name; by default something new."""


class PlaygroundPass(AnswerModel):
    url: str
    """Of the LiveKit server."""
    token: str
    """Joins this room under this identity, and publishes a microphone. It is valid for two minutes."""
    room: str
    identity: str
    heard: bool
    """Whether ``capture.rooms`` includes the room."""


def joining(playground: Playground) -> APIRouter:
    routes = APIRouter(prefix="/v1/playground", tags=["playground"], responses=documented((*OF_API, *_OTHERS)))

    @routes.post("/join")
    async def join_playground(request: Request, order: PlaygroundOrder) -> PlaygroundPass:
        """Get a token to join a room whose name begins with ``playground-``."""
        operator(request)
        room, identity = PREFIX + (order.room or secrets.token_hex(3)), f"guest-{secrets.token_hex(3)}"
        return PlaygroundPass(
            url=playground.url,
            token=playground.token(room, identity),
            room=room,
            identity=identity,
            heard=playground.hears(room),
        )

    return routes
