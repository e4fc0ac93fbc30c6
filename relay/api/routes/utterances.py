"""One event, and one utterance with everything about it."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from relay import __version__
from relay.api.access import Viewer
from relay.api.answers import AnswerModel, AttemptEntry, DeliveryEntry, LoggedEvent, Time, iso
from relay.api.backend import Backend, sender
from relay.api.problems import OF_API, Problem, documented
from relay.api.routes.deliveries import EventId
from relay.api.routes.events import As, StreamId, shown
from relay.outbox.operator.views import AttemptView

UtteranceId = Annotated[str, Path(min_length=1, max_length=64, description="`utterance.id` of an event.")]
Requested = Annotated[
    str | None, Query(max_length=64, description="The event as this endpoint gets it: its part, in its format.")
]


class About(AnswerModel):
    version: str
    now: Time
    endpoint: str | None
    """The endpoint that the token is bound to; null for an operator's or a tenant's."""
    tenant: str | None
    """The tenant that the token is bound to."""
    may_change: bool
    """Whether the sender may use the operations that change something."""
    playground: bool
    """Whether the page can join a room with a browser's microphone."""


class EventAttempt(AttemptEntry):
    n: int
    """The log's number of it, in ascending order."""
    event_id: str
    type: str


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
    routes = APIRouter(prefix="/v1", tags=["events"], responses=documented((*OF_API, 404)))

    @routes.get("/about", tags=["about"])
    async def about(request: Request) -> About:
        """The relay, and what the sender may do."""
        viewer = sender(request)
        may_change = viewer.is_operator and not backend.read_only
        return About(
            version=__version__,
            now=iso(backend.clock.now_ms()),
            endpoint=viewer.endpoint,
            tenant=viewer.tenant,
            may_change=may_change,
            playground=backend.playground is not None and viewer.is_operator,
        )

    @routes.get("/events/{event_id}")
    async def event(request: Request, event_id: EventId, endpoint: Requested = None) -> LoggedEvent:
        """An event by its id."""
        sight = backend.sight(request, endpoint)
        found = await backend.log.browsing.event(event_id, sight.selection(types=sight.types("*")))
        if found is None:
            raise Problem(404, "The log has no such event, or has it no longer.")
        return LoggedEvent.model_validate(shown(found, sight))

    @routes.get("/streams/{stream_id}/utterances/{utterance_id}")
    async def utterance(
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
            attempts=[event_attempt(view, viewer) for view in found.attempts],
        )

    return routes


def event_attempt(view: AttemptView, viewer: Viewer) -> EventAttempt:
    fields: dict[str, Any] = AttemptEntry.of(view, viewer).model_dump()
    return EventAttempt(**fields, n=view.n, event_id=view.event_id, type=view.type)
