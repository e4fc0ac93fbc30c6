"""The application behind the HTTP port."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from relay import __version__
from relay.api.access import Viewer
from relay.api.problems import Problem, ProblemDocument, log_away
from relay.api.routes import livekit
from relay.config.fields import NAME, NOT_A_TIME
from relay.config.problems import in_words
from relay.errors import OutboxError

_DESCRIPTION = (
    "What the relay has heard, and how it was delivered. Errors are problems (RFC 9457). Times are ISO 8601 in UTC "
    "with milliseconds. Lists are pages: `next` leads to the next one, and is null on the last. A query parameter that "
    "an operation does not list is refused with 422."
)
_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MISTAKES = "The request has mistakes; `errors` names each."
_UNREADABLE = "cannot be read as JSON: not UTF-8, nested too deeply, or a number with too many digits"
_NO_PATH = "Nothing is at this path; /openapi.json lists what there is."


def application(routers: Sequence[APIRouter], *, documented: bool) -> FastAPI:
    """An application of these parts. ``documented``: whether it serves /openapi.json."""
    app = FastAPI(
        title="speech-relay",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/openapi.json" if documented else None,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            Problem: _problem,
            HTTPException: partial(_http_exception, [route for each in routers for route in each.routes]),
            RequestValidationError: _invalid,
            Exception: _failed,
        },
        separate_input_output_schemas=False,
    )
    # Not include_router: it builds each operation once more, at the first request.
    app.router.routes.extend(_named(_closed(route)) for each in routers for route in each.routes)
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generated()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs", {}) | {"ProblemDocument": problem}
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for schema in schemas.values():
                for field in schema.get("properties", {}).values():
                    if "anyOf" in field and isinstance(field.get("default"), dict):
                        # openapi-python-client leaves out each operation that has such a type. The section says it too.
                        del field["default"]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _closed(route: BaseRoute) -> BaseRoute:
    """The route, which refuses query parameters that it does not have: a misspelt filter would return everything.

    Only in /v1, and not for LiveKit's webhooks: what others send to the rest is theirs, such as a probe's parameters.
    """
    if isinstance(route, APIRoute) and route.path.startswith("/v1/") and route.path != livekit.PATH:
        known = sorted(field.alias for field in route.dependant.query_params)
        route.app = _OnlyKnown(route.app, known)
    return route


def _named(route: BaseRoute) -> BaseRoute:
    """The route; a client that is made from the document has a function of its name."""
    if isinstance(route, APIRoute):
        route.operation_id = route.name
    return route


class _OnlyKnown:
    def __init__(self, app: ASGIApp, known: Sequence[str]) -> None:
        self._app, self._known = app, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if unknown := [name for name in Request(scope).query_params if name not in self._known]:
            what = f"unknown parameter; there {_listed(self._known)}"
            places = dict.fromkeys(f"query.{name}" if _KEY.fullmatch(name) else "query" for name in unknown)
            raise Problem(422, _MISTAKES, errors=[{"where": where, "what": what} for where in places])
        await self._app(scope, receive, send)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "are none here"
    return f"{'is' if len(names) == 1 else 'are'} {', '.join(names)}"


async def _problem(_request: Request, problem: Problem) -> Response:
    return problem.response()


async def _http_exception(routes: Sequence[BaseRoute], request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        # Starlette names the methods of one route of the path alone.
        of_path = [each for each in routes if each.matches(request.scope)[0] is not Match.NONE]
        allowed: set[str] = {method for each in of_path for method in getattr(each, "methods", None) or ()}
        allowed |= {"HEAD"} if "GET" in allowed else set()
        names = ", ".join(sorted(allowed))
        return Problem(405, f"This path allows {names}.", headers={"Allow": names}).response()
    if error.status_code == 404:
        return Problem(404, _NO_PATH).response()
    if isinstance(error.__cause__, Problem):  # raised while the body was read
        return error.__cause__.response()
    if error.status_code == 400:  # the only one of FastAPI
        return Problem(422, _MISTAKES, errors=[{"where": "body", "what": _UNREADABLE}]).response()
    return Problem(error.status_code, str(error.detail)).response()


async def _invalid(_request: Request, error: RequestValidationError) -> Response:
    mistakes = [_mistake(each["type"], each["loc"], each.get("ctx", {}), each["msg"]) for each in error.errors()]
    return Problem(422, _MISTAKES, errors=mistakes).response()


_OF_REQUESTS = {
    "model_type": "not an object; write it like {}",
    "model_attributes_type": "not an object; write it like {}",
    "dict_type": "not an object; write it like {}",
    "timezone_aware": NOT_A_TIME,
    "json_invalid": "not JSON",
}


def _mistake(kind: str, at: Sequence[str | int], context: Mapping[str, Any], message: str) -> dict[str, str]:
    """Without the input, which may be anything. An unknown key is named if it looks like one."""
    what = "unknown key" if kind == "extra_forbidden" else _OF_REQUESTS.get(kind)
    if kind == "extra_forbidden" and not _KEY.fullmatch(str(at[-1])):
        at = at[:-1]
    if tuple(at) == ("body",) and kind == "missing":
        what = "is missing; send a JSON object: {} chooses nothing"
    elif kind == "json_invalid":
        at = ("body",)
    elif kind.startswith(("datetime_", "date_")):
        what = NOT_A_TIME
    elif kind == "string_pattern_mismatch" and context.get("pattern") != NAME:
        what = "is not the `next` of a page" if at[-1] == "cursor" else f"does not match {context.get('pattern')}"
    return {"where": ".".join(map(str, at)), "what": what or in_words(kind, context, message)}


async def _failed(request: Request, error: Exception) -> Response:
    """The guard logs it: Starlette raises it again."""
    if isinstance(error, OutboxError):
        viewer: Viewer | None = getattr(request.state, "viewer", None)
        return log_away(str(error) if viewer and viewer.is_operator else None).response()
    return Problem(500, "The relay failed; its log has the reason.").response()
