"""Attempts: each, and how many there were."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime

from relay.api.answers import AnswerModel, Time, iso
from relay.api.backend import Backend, sender
from relay.api.problems import OF_API, documented
from relay.api.routes.deliveries import EndpointName
from relay.api.routes.events import LARGEST
from relay.api.routes.utterances import EventAttempt, event_attempt
from relay.clock import epoch_ms

SCANNED = 50_000
"""Attempts that one request looks at."""
LONGEST_MS = 86_400_000


class Attempts(AnswerModel):
    attempts: list[EventAttempt]
    """Newest first."""
    next: int | None
    """The ``cursor`` of the next page. A page may be empty and have a next one: only so many attempts are looked at."""


class AttemptPeriod(AnswerModel):
    endpoint: str
    at: Time
    """When the period begins."""
    ok: int
    failed: int
    slowest_ms: float


class AttemptCounts(AnswerModel):
    periods: list[AttemptPeriod]
    """By endpoint, in order of time. Periods without an attempt are left out."""
    since: Time
    """Attempts from then on are counted. It is later than asked for if there were more than 50,000."""


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1/attempts", tags=["deliveries"], responses=documented(OF_API))

    @routes.get("")
    async def attempts(
        request: Request,
        endpoint: EndpointName = None,
        outcome: Annotated[Literal["ok", "failed"] | None, Query(description="Only these.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[int | None, Query(ge=0, le=LARGEST, description="`next` of the page before.")] = None,
    ) -> Attempts:
        """The newest attempts."""
        viewer = sender(request)
        found, following = await backend.log.browsing.attempts(
            before=cursor,
            endpoint=backend.only(request, endpoint),
            ok=None if outcome is None else outcome == "ok",
            limit=limit,
            scan=SCANNED,
        )
        entries = [event_attempt(view, viewer) for view in found]
        return Attempts(attempts=entries, next=following)

    @routes.get("/counts")
    async def counts(
        request: Request,
        since: Annotated[AwareDatetime, Query(description="At most a day ago; earlier ones are not counted.")],
        endpoint: EndpointName = None,
        step: Annotated[int, Query(ge=1, le=3600, description="Seconds of a period.")] = 15,
    ) -> AttemptCounts:
        """How many attempts succeeded and failed, by endpoint and period."""
        now = backend.clock.now_ms()
        found, begin = await backend.log.browsing.attempt_counts(
            endpoint=backend.only(request, endpoint),
            since=min(max(epoch_ms(since), now - LONGEST_MS), now),  # later, it may be a time that has no name in UTC
            step=step * 1000,
            scan=SCANNED,
        )
        periods = [
            AttemptPeriod(
                endpoint=each.endpoint, at=iso(each.at), ok=each.ok, failed=each.failed, slowest_ms=each.slowest_ms
            )
            for each in found
        ]
        return AttemptCounts(periods=periods, since=iso(begin))

    return routes
