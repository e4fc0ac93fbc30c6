"""Whether the relay runs, and what it hears: what ``speech-relay status`` shows."""

from dataclasses import asdict

from fastapi import APIRouter, Request

from relay.api.answers import AnswerModel, Time, iso, iso_or_none
from relay.api.backend import Backend, operator
from relay.api.problems import OF_API, documented
from relay.outbox.log.processes import Role


class ServiceStatus(AnswerModel):
    id: str
    """Of the process; never used again."""
    role: Role
    """``run`` does what ``worker`` and ``dispatch`` do."""
    host: str
    pid: int
    version: str
    started_at: Time
    ready_at: Time | None
    """When it was first ready."""
    seen_at: Time
    stopped_at: Time | None
    """When it stopped in order; null while it runs, and if it died."""
    waits_for: str
    """Why it is not ready now; empty if it is."""
    rooms_heard: int
    rooms_unheard: int
    jobs: int
    """Rooms that this process listens in."""
    lanes: int
    """Lanes that this process holds to deliver them."""
    cpu_load: float
    """From 0 to 1, as the next."""
    cpu_limit: float
    refusing: bool
    """Whether new rooms are refused because of the load."""


class StreamCounts(AnswerModel):
    recorded: int
    """Tracks that are being recorded."""
    rooms: int
    orphaned: int


class RelayStatus(AnswerModel):
    service: ServiceStatus | None
    """The newest run with this log; null if there was none."""
    streams: StreamCounts


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["about"], responses=documented(OF_API))

    @routes.get("/status")
    async def status(request: Request) -> RelayStatus:
        """The relay's newest run, and what is being recorded. For operators."""
        operator(request)
        service = await backend.log.inspection.service()
        streams = await backend.log.inspection.open_streams()
        times = ("started_at", "ready_at", "seen_at", "stopped_at")
        shown = service and ServiceStatus(
            **{
                **asdict(service),
                **{key: iso_or_none(getattr(service, key)) for key in times},
                "started_at": iso(service.started_at),
                "seen_at": iso(service.seen_at),
            }
        )
        return RelayStatus(service=shown, streams=StreamCounts(**asdict(streams)))

    return routes
