"""Errors as problems: https://www.rfc-editor.org/rfc/rfc9457. No problem repeats what a request contained."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import Response

from relay.documented import Documented
from relay.events.catalog import CATALOG, matches

CONTENT_TYPE = "application/problem+json"
_NONE: Mapping[str, str] = MappingProxyType({})


class RequestMistake(Documented):
    """One mistake in a request."""

    where: str
    """``query.limit``, ``path.name`` or ``body.since``."""
    what: str


class ProblemDocument(Documented):
    """What is wrong, as RFC 9457 has it."""

    type: str = "about:blank"
    """Always ``about:blank``: the status says what kind of problem it is."""
    title: str
    """The phrase of the status."""
    status: int
    detail: str
    """What is wrong, and what to do."""
    errors: list[RequestMistake] | None = None
    """For 422: each mistake."""


class Problem(Exception):
    """Ends a request with a problem as its answer."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] = _NONE,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.errors = status, detail, headers, errors

    def response(self) -> Response:
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors is not None:
            document["errors"] = self.errors
        return Response(
            json.dumps(document), status_code=self.status, headers=dict(self.headers), media_type=CONTENT_TYPE
        )


def mistake(detail: str, where: str, what: str) -> Problem:
    """The answer to a request with one mistake, which is named."""
    return Problem(422, detail, errors=[{"where": where, "what": what}])


def strange_cursor() -> Problem:
    return mistake("The cursor is not one of this list.", "query.cursor", "is not the `next` of a page")


def named_types(pattern: str, where: str) -> list[str]:
    """The types of events that a glob names. Raises :class:`Problem` if none matches."""
    named = [each for each in CATALOG if matches(each, (pattern,))]
    if not named:
        raise mistake("No type of event matches.", where, "matches no type")
    return named


def log_away(reason: str | None = None) -> Problem:
    """The answer while the log cannot be used; with the reason, which names hosts, for operators only."""
    return Problem(
        503,
        f"The log cannot be used: {reason}"
        if reason
        else "The log cannot be used; the relay's own log has the reason.",
        headers={"Retry-After": "5"},
    )


EXPLAINED = {
    400: "The request is not HTTP as this server understands it.",
    401: "A token is required, or this one is not known.",
    403: "This token may not do that, or a web page of another site asked.",
    404: "Nothing is there.",
    405: "Another method is required; the header Allow names it.",
    409: "The present state does not allow it.",
    413: "The body of the request is too long.",
    415: "The body of the request must be JSON, and its Content-Type must say so.",
    421: "The header Host does not name this relay.",
    422: "The request has mistakes.",
    429: "Too many requests with this token; the header Retry-After says when to continue.",
    500: "The relay failed. Its log has the reason.",
    503: "The log cannot be used, or too many streams are open.",
}
ALWAYS = (400, 421, 500)
OF_API = (*ALWAYS, 401, 403, 404, 422, 429, 503)
OF_CHANGES = (*OF_API, 409)
OF_ACTIONS = (*OF_CHANGES, 413, 415)


def documented(statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation may answer, for the OpenAPI document."""
    return {
        status: {
            "description": EXPLAINED[status],
            "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted(statuses)
    }
