"""Serves the live page: its files are in the folder ``page``, and everything they load is in it too."""

from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter
from fastapi.responses import FileResponse

from relay.api.problems import Problem

FOLDER = Path(__file__).with_name("page")
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
