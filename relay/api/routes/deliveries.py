"""Endpoints and deliveries: how they stand."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime

from relay.api.answers import AttemptEntry, Deliveries, DeliveryEntry, EventDelivery, iso
from relay.api.backend import Backend, sender
from relay.api.endpoint_answers import EndpointList, EndpointStatus
from relay.api.problems import OF_API, Problem, documented
from relay.clock import epoch_ms
from relay.outbox.operator.delivery_pages import position_of, text_of
from relay.outbox.operator.views import UNDELIVERED, DeliveryState, DeliveryView, EndpointView
from relay.outbox.records import EndpointState

SCANNED = 20_000
PENDING = 10_000
"""Events of each endpoint's backlog that are counted."""
EventId = Annotated[str, Path(min_length=1, max_length=128, description="The event's id: its webhook-id.")]
EndpointName = Annotated[str | None, Query(max_length=64, description="Only this endpoint's.")]


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["deliveries"], responses=documented(OF_API))

    @routes.get("/endpoints")
    async def endpoints(
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
        views = await backend.log.inspection.endpoints(wanted=backend.wanted, names=page, most=PENDING)
        known = {view.state.name: view for view in views}
        new = {name: EndpointView(EndpointState(name, active=False), 0, None, 0, 0, 0) for name in page}
        return EndpointList(
            endpoints=[
                EndpointStatus.of(
                    view,
                    _state(view.state, configured, now),
                    now,
                    viewer,
                    None if name in configured else made.get(name),
                )
                for name, view in (new | known).items()
            ],
            next=page[-1] if len(shown) > limit else None,
        )

    @routes.get("/deliveries")
    async def deliveries(
        request: Request,
        state: Annotated[
            list[DeliveryState] | None, Query(max_length=8, description="Repeatable; without it, all but delivered.")
        ] = None,
        endpoint: EndpointName = None,
        since: Annotated[AwareDatetime | None, Query(description="Only what is in its state since then.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(max_length=80, description="`next` of the page before.")] = None,
    ) -> Deliveries:
        """What is not delivered, or what is in a state."""
        only, viewer = backend.only(request, endpoint), sender(request)
        after = None if cursor is None else position_of(cursor)
        if cursor is not None and after is None:
            wrong = [{"where": "query.cursor", "what": "is not the `next` of a page"}]
            raise Problem(422, "The cursor is not one of this list.", errors=wrong)
        found, following = await backend.log.inspection.delivery_page(
            state or UNDELIVERED,
            wanted=backend.wanted,
            endpoint=only,
            since=0 if since is None else epoch_ms(since),
            limit=limit,
            after=after,
            scan=SCANNED,
        )
        states = await backend.log.inspection.endpoint_states({view.endpoint for view in found})
        return Deliveries(
            deliveries=[DeliveryEntry.of(_in_accord(view, states), viewer) for view in found],
            next=None if following is None else text_of(following),
        )

    @routes.get("/deliveries/{event_id}", responses=documented((404,)))
    async def delivery(request: Request, event_id: EventId, endpoint: EndpointName = None) -> EventDelivery:
        """Where an event stands for each endpoint, and every attempt that the log has."""
        only, viewer = backend.only(request, endpoint), sender(request)
        found = await backend.log.inspection.delivery(event_id, endpoint=only)
        seen = found is not None and (viewer.is_operator or any(_is_seen(backend, each) for each in found.deliveries))
        if found is None or not seen:
            raise Problem(404, "The log has no such event, or has it no longer.")
        states = await backend.log.inspection.endpoint_states({view.endpoint for view in found.deliveries})
        return EventDelivery(
            event_id=found.event.id,
            type=found.event.type,
            emitted_at=iso(found.event.emitted_at),
            deliveries=[DeliveryEntry.of(_in_accord(view, states), viewer) for view in found.deliveries],
            attempts=[AttemptEntry.of(view, viewer) for view in found.attempts],
        )

    return routes


def _is_seen(backend: Backend, view: DeliveryView) -> bool:
    return backend.wanted(view.endpoint, view.room, view.participant, view.type)


def _state(known: EndpointState, configured: set[str], now: int) -> str:
    if known.disabled_at is not None:
        return "disabled"
    if known.resting_until is not None and known.resting_until > now:
        return "resting"
    if known.active:
        return "enabled"
    return "new" if known.name in configured else "not in config"


def _in_accord(view: DeliveryView, states: Mapping[str, EndpointState]) -> DeliveryView:
    """The delivery with the next attempt if its endpoint is sent to: never while it is disabled."""
    state = states.get(view.endpoint)
    if state is None or view.next_at is None:
        return view
    return replace(view, next_at=None if state.disabled_at is not None else max(view.next_at, state.resting_until or 0))
