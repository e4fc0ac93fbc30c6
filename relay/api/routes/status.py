"""The relay itself: what a sender may do, whether it runs, and what it hears."""

from collections.abc import Mapping
from dataclasses import asdict

from fastapi import APIRouter, Request

from relay import __version__
from relay.api.answers import AnswerModel, Time, iso, iso_or_none
from relay.api.backend import Backend, operator, sender
from relay.api.problems import OF_API, documented
from relay.outbox.log.processes import Duty, ProcessState, Role, Standing, standing


class ProcessStatus(AnswerModel):
    id: str
    """Of the process; never used again."""
    state: Standing
    """``lost``: it has not reported for 6 s and has not stopped in order."""
    role: Role
    """``run`` does what ``worker`` and ``dispatch`` do."""
    host: str
    """The machine's name; after a blank, what tells its containers and its boots apart."""
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
    lanes_held_up: int
    """Those of a lost one that have something to send, which no other may send until its leases are over."""
    cpu_load: float
    """From 0 to 1, as the next."""
    cpu_limit: float
    refusing: bool
    """Whether new rooms are refused because of the load."""
    endpoints: tuple[str, ...]
    """Names of the endpoints in its configuration; none of a worker, which sends nothing."""


class StreamCounts(AnswerModel):
    recorded: int
    """Tracks that are being recorded."""
    rooms: int
    orphaned: int


class RelayStatus(AnswerModel):
    service: ProcessStatus | None
    """The newest run with this log; null if there was none."""
    processes: tuple[ProcessStatus, ...]
    """Those that run, and those that died in the last ten minutes; the newest first."""
    duties: dict[Duty, str]
    """Which process, by its ``id``, does what one does for all."""
    streams: StreamCounts


class About(AnswerModel):
    version: str
    now: Time
    endpoint: str | None
    """The endpoint that the token is bound to; null for an operator's or a tenant's."""
    tenant: str | None
    """The tenant that the token is bound to."""
    may_change: bool
    """Whether the sender may use every operation that changes something. A tenant may use those on its own endpoints,
    and has false here."""
    playground: bool
    """Whether the page can join a room with a browser's microphone."""


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["about"], responses=documented(OF_API))

    @routes.get("/about")
    async def get_about(request: Request) -> About:
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

    @routes.get("/status")
    async def get_status(request: Request) -> RelayStatus:
        """The relay's processes, and what is being recorded. For operators."""
        operator(request)
        fleet, now = await backend.log.inspection.fleet(), backend.clock.now_ms()
        return RelayStatus(
            service=fleet.newest and _shown(fleet.newest, fleet.held_up, now),
            processes=tuple(_shown(state, fleet.held_up, now) for state in fleet.processes),
            duties=dict(fleet.duties),
            streams=StreamCounts(**asdict(fleet.streams)),
        )

    return routes


def _shown(state: ProcessState, held_up: Mapping[str, int], now: int) -> ProcessStatus:
    return ProcessStatus(
        **{
            **asdict(state),
            "state": standing(state, now),
            "lanes_held_up": held_up.get(state.id, 0),
            "started_at": iso(state.started_at),
            "ready_at": iso_or_none(state.ready_at),
            "seen_at": iso(state.seen_at),
            "stopped_at": iso_or_none(state.stopped_at),
        }
    )
