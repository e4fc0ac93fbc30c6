"""Decides how to keep every room covered once, from observed state, without I/O.

LiveKit dispatches an agent to a room once and never checks again: not for a room that existed before, not after the job
process dies, not after its server restarts. So the relay polls and dispatches its agent itself.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

DISPATCH_MS = 5_000
"""How long a dispatch may take to bring an agent into the room before another one is sent."""

HASTY_MS = 1_000
"""The same while another worker hangs: the server may have asked that one, and waits 10 s for its answer."""

VERIFY_MS = 2_500
"""The poll interval of a room that another worker covers."""

VERIFY_OWN_MS = 15_000
"""The poll interval of a room that this worker covers: it learns of its own job's end at once, without the server."""

YOUNG_MS = 10_000
"""The server's count of a room's participants lags by up to 5 s, so a new room is polled whatever the count."""

EMPTY_MS = 30_000
"""The poll interval of a room that stays empty."""


WORKER_ATTRIBUTE = "speech-relay.worker"
"""The agent attribute that names its worker."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A room in the list of rooms."""

    name: str
    sid: str
    participants: int
    """The server's count, late by up to 5 s."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One of the relay's agents in a room."""

    identity: str
    worker: str
    """The worker that it belongs to."""
    connected: bool = True
    """False while it joins. If it is removed then, its job waits for the connection for 15 s and more."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A room's participants, from its participant list."""

    people: int
    """All participants except agents and egress."""
    agents: tuple[Agent, ...]
    """The relay's own agents, the earliest first."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """The jobs of this worker, and what is known of the others of its fleet."""

    worker: str
    taking: bool = True
    """Whether a worker is registered and takes rooms: an earlier dispatch goes nowhere, and would be waited for."""
    rooms: frozenset[str] = frozenset()
    """Names of the rooms with an accepted job: in the room, joining, reconnecting or closing."""
    agents: frozenset[str] = frozenset()
    """Identities of the agents whose job runs."""
    lost_workers: frozenset[str] = frozenset()
    """Other workers, which have ended with their jobs."""
    others_hang: bool = False
    """Whether another worker is silent, and the server may not know it yet."""

    @property
    def dispatch_ms(self) -> int:
        """How long to wait for an agent that was sent."""
        return HASTY_MS if self.others_hang else DISPATCH_MS

    def lost(self, agent: Agent) -> bool:
        """Whether a dead job left the agent behind: the server lists it for 20 s more."""
        if agent.worker in self.lost_workers:
            return True
        return agent.worker == self.worker and agent.identity not in self.agents


@dataclass(frozen=True, slots=True)
class ServerRoom:
    """What is remembered about a room."""

    name: str
    first_seen: int
    looked_at: int | None = None
    seen: Seen | None = None
    heard: bool = False
    held: bool = False
    """Whether a job of this process was there at the last poll."""
    dispatched_at: int | None = None


@dataclass(frozen=True, slots=True)
class RoomDispatch:
    """Send an agent to the room."""

    room: str
    sid: str
    again: bool = field(default=False, compare=False)
    """Whether the previous one did not arrive."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove an agent from the room: a duplicate, or what a dead process left behind."""

    room: str
    identity: str


Action = RoomDispatch | Remove


@dataclass(frozen=True, slots=True)
class State:
    """All remembered state: rooms by sid. Times are elapsed milliseconds, by a clock that is never set."""

    rooms: Mapping[str, ServerRoom] = field(default_factory=dict)

    @property
    def heard(self) -> int:
        """Rooms with one of the relay's agents in them."""
        return sum(room.heard for room in self.rooms.values())

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Names of the rooms with people and without the relay."""
        rooms = self.rooms.values()
        return tuple(sorted(room.name for room in rooms if room.seen and room.seen.people and not room.heard))


def may_need_an_agent(state: State, room: str, jobs: Jobs, now: int) -> bool:
    """Whether to look at a room of which a webhook came: not while this worker has it, or an agent is on its way."""
    sent = (known.dispatched_at for known in state.rooms.values() if known.name == room)
    return room not in jobs.rooms and not any(at is not None and now - at < jobs.dispatch_ms for at in sent)


def due(state: State, listed: Iterable[Listed], jobs: Jobs, now: int, *, told: Set[str] = frozenset()) -> list[Listed]:
    """The rooms to poll now. ``told``: names of rooms for which a webhook came."""
    return [room for room in listed if _is_due(state.rooms.get(room.sid), room, jobs, now, room.name in told)]


def _is_due(known: ServerRoom | None, listed: Listed, jobs: Jobs, now: int, told: bool) -> bool:
    if known is None or known.looked_at is None:
        return True
    waited = now - known.looked_at
    if known.heard:
        agents = known.seen.agents if known.seen is not None else ()
        if len(agents) > 1 or any(agent.worker in jobs.lost_workers for agent in agents):
            return True
        if known.held:
            return known.name not in jobs.rooms or waited >= VERIFY_OWN_MS
        return waited >= VERIFY_MS
    people = known.seen is not None and known.seen.people > 0
    young = now - known.first_seen < YOUNG_MS
    return told or people or young or listed.participants > 0 or waited >= EMPTY_MS


def plan(
    state: State, listed: Iterable[Listed], seen: Mapping[str, Seen], jobs: Jobs, now: int, *, all_rooms: bool = True
) -> tuple[State, list[Action]]:
    """The actions after this poll, and the state to remember. ``seen`` is by room sid, for the polled rooms.

    ``all_rooms``: whether every room of the server is listed, so that the others are gone.
    """
    actions: list[Action] = []
    rooms: dict[str, ServerRoom] = {} if all_rooms else dict(state.rooms)
    for item in listed:
        room = state.rooms.get(item.sid) or ServerRoom(name=item.name, first_seen=now)
        if item.sid in seen:
            room = _look(room, seen[item.sid], jobs, now)
            actions += _remove(room, jobs)
            if jobs.taking and _wants_dispatch(room, jobs, now):
                actions.append(RoomDispatch(room.name, item.sid, again=room.dispatched_at is not None))
                room = replace(room, dispatched_at=now)
        rooms[item.sid] = room
    return State(rooms), actions


def _look(room: ServerRoom, seen: Seen, jobs: Jobs, now: int) -> ServerRoom:
    heard = any(not jobs.lost(agent) for agent in seen.agents)
    # an agent that arrived answers the dispatch: if it is lost, the next one need not wait for this one
    dispatched_at = None if heard else room.dispatched_at
    held = room.name in jobs.rooms
    return replace(room, looked_at=now, seen=seen, heard=heard, held=held, dispatched_at=dispatched_at)


def _remove(room: ServerRoom, jobs: Jobs) -> list[Action]:
    agents = room.seen.agents if room.seen else ()
    dead = [agent for agent in agents if jobs.lost(agent)]
    surplus = [agent for agent in agents if agent.connected and not jobs.lost(agent)][1:]
    return [Remove(room.name, agent.identity) for agent in (*dead, *surplus)]


def _wants_dispatch(room: ServerRoom, jobs: Jobs, now: int) -> bool:
    if room.heard or room.name in jobs.rooms or room.seen is None or room.seen.people == 0:
        return False
    return room.dispatched_at is None or now - room.dispatched_at >= jobs.dispatch_ms
