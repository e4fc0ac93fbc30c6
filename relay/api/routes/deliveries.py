"""Endpoints, deliveries and attempts: how they stand, and how many there were."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from relay.api.answers import (
    AnswerModel,
    AttemptEntry,
    Deliveries,
    DeliveryEntry,
    EventAttempt,
    EventDelivery,
    Time,
    iso,
)
from relay.api.backend import Backend, sender
from relay.api.endpoint_answers import EndpointList, EndpointStatus
from relay.api.problems import OF_API, Problem, documented, strange_cursor
from relay.api.routes.events import LARGEST, EventId
from relay.clock import epoch_ms
from relay.config.fields import Moment
from relay.outbox.operator.delivery_pages import position_of, text_of
from relay.outbox.operator.views import UNDELIVERED, DeliveryState, DeliveryView, EndpointView

SCANNED = 20_000
PENDING = 10_000
"""Events of each endpoint's backlog that are counted."""
PENDING_OF_ALL = 100_000
"""And of all backlogs on a page, unless it is an operator's."""
ATTEMPTS_SCANNED = 50_000
"""Attempts that one request looks at."""
LONGEST_MS = 86_400_000
EndpointName = Annotated[str | None, Query(max_length=64, description="Only this endpoint's.")]


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
    routes = APIRouter(prefix="/v1", tags=["deliveries"], responses=documented(OF_API))

    @routes.get("/endpoints")
    async def list_endpoints(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 500,
        cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
    ) -> EndpointList:
        """How each endpoint is doing, and what waits for it."""
        viewer, now = sender(request), backend.clock.now_ms()
        only, made = backend.shown(viewer), backend.directory.records if backend.directory else {}
        configured = {endpoint.name for endpoint in backend.endpoints()}
        names = {*configured, *await backend.log.inspection.endpoint_names()}
        shown = sorted(name for name in names if (only is None or name in only) and name > (cursor or ""))
        page = shown[:limit]
        most = PENDING if viewer.is_operator else min(PENDING, PENDING_OF_ALL // max(1, len(page)))
        views = await backend.log.inspection.endpoints(wanted=backend.wanted, names=page, most=most)
        known = {view.state.name: view for view in views}
        new = {name: EndpointView.new(name) for name in page}
        return EndpointList(
            endpoints=[
                EndpointStatus.of(
                    view,
                    view.word(configured, now),
                    now,
                    viewer,
                    None if name in configured else made.get(name),
                )
                for name, view in (new | known).items()
            ],
            next=page[-1] if len(shown) > limit else None,
        )

    @routes.get("/deliveries")
    async def list_deliveries(
        request: Request,
        state: Annotated[
            list[DeliveryState] | None, Query(max_length=8, description="Repeatable; without it, all but delivered.")
        ] = None,
        endpoint: EndpointName = None,
        since: Annotated[Moment | None, Query(description="Only what is in its state since then.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(max_length=80, description="`next` of the page before.")] = None,
    ) -> Deliveries:
        """Undelivered events, or deliveries in the given states."""
        only, viewer = backend.only(request, endpoint), sender(request)
        after = None if cursor is None else position_of(cursor)
        if cursor is not None and after is None:
            raise strange_cursor()
        found, following = await backend.log.inspection.delivery_page(
            state or UNDELIVERED,
            wanted=backend.wanted,
            endpoint=only,
            since=0 if since is None else epoch_ms(since),
            limit=limit,
            after=after,
            scan=SCANNED,
        )
        found = [view for view in found if backend.allows(viewer, view.endpoint, view.room)]
        return Deliveries(
            deliveries=[DeliveryEntry.of(view, viewer) for view in found],
            next=None if following is None else text_of(following),
        )

    @routes.get("/deliveries/{event_id}", responses=documented((404,)))
    async def get_delivery(request: Request, event_id: EventId, endpoint: EndpointName = None) -> EventDelivery:
        """Where an event stands for each endpoint, and every attempt that the log has."""
        only, viewer = backend.only(request, endpoint), sender(request)
        found = await backend.log.inspection.delivery(event_id, endpoint=only)
        seen = found is not None and (viewer.is_operator or any(_is_seen(backend, each) for each in found.deliveries))
        if found is None or not seen:
            raise Problem(404, "The log has no such event, or has it no longer.")
        return EventDelivery(
            event_id=found.event.id,
            type=found.event.type,
            emitted_at=iso(found.event.emitted_at),
            deliveries=[DeliveryEntry.of(view, viewer) for view in found.deliveries],
            attempts=[AttemptEntry.of(view, viewer) for view in found.attempts],
        )

    @routes.get("/attempts")
    async def list_attempts(
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
            scan=ATTEMPTS_SCANNED,
            seen=partial(backend.allows, viewer),
        )
        entries = [EventAttempt.of(view, viewer) for view in found]
        return Attempts(attempts=entries, next=following)

    @routes.get("/attempts/counts")
    async def count_attempts(
        request: Request,
        since: Annotated[Moment, Query(description="At most a day ago; earlier ones are not counted.")],
        endpoint: EndpointName = None,
        step: Annotated[int, Query(ge=1, le=3600, description="Seconds of a period.")] = 15,
    ) -> AttemptCounts:
        """How many attempts succeeded and failed, by endpoint and period."""
        now = backend.clock.now_ms()
        found, begin = await backend.log.browsing.attempt_counts(
            endpoint=backend.only(request, endpoint),
            since=min(max(epoch_ms(since), now - LONGEST_MS), now),  # later, it may be a time that has no name in UTC
            step=step * 1000,
            scan=ATTEMPTS_SCANNED,
        )
        periods = [
            AttemptPeriod(
                endpoint=each.endpoint, at=iso(each.at), ok=each.ok, failed=each.failed, slowest_ms=each.slowest_ms
            )
            for each in found
        ]
        return AttemptCounts(periods=periods, since=iso(begin))

    return routes


def _is_seen(backend: Backend, view: DeliveryView) -> bool:
    return backend.wanted(view.endpoint, view.room, view.participant, view.type)
