"""Keeps every room covered: polls the server's rooms, and dispatches the relay's agent where missing."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase

from livekit import api
from livekit.agents.types import ATTRIBUTE_AGENT_NAME
from livekit.api.twirp_client import ServerError, ServerErrorCode

from relay.capture.livekit.access import API_ERRORS, Access, Unreachable, explain
from relay.capture.livekit.plan import (
    WORKER_ATTRIBUTE,
    Action,
    Agent,
    Jobs,
    Listed,
    RoomDispatch,
    Seen,
    State,
    due,
    may_need_an_agent,
    plan,
)
from relay.clock import Clock

log = logging.getLogger(__name__)

_LOOKS_AT_ONCE = 8
"""Requests in flight at once to the server's API."""

_REST = 5
"""The pause between two polls, as a multiple of a poll's duration: a distant or large server is asked less often."""

_TOLD_REST_S = 0.05
"""The pause after a look at rooms for which webhooks came. A room that begins causes several."""

_LEFTOVERS_EVERY_S = 0.5

_MOST_TOLD = 1000
"""Maximum rooms that wait for a look after a webhook. The next poll finds the others."""


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """The coverage as of the last poll."""

    heard: int
    """Rooms with the relay's agent in them."""
    uncovered: tuple[str, ...]
    """Names of the rooms with people and without the relay."""
    looked_at: int | None
    """When the server last answered, epoch milliseconds; None before the first time."""
    unreachable: bool
    """Whether the server is not answering now."""


class Coverage:
    """One loop over the server's API. ``jobs`` returns the rooms that this process's worker already covers; ``on_back``
    is called when the server answers again after an outage."""

    def __init__(
        self,
        access: Access,
        *,
        agent_name: str,
        rooms: Sequence[str],
        jobs: Callable[[], Jobs],
        clock: Clock,
        on_back: Callable[[], None] = lambda: None,
        every_s: float,
    ) -> None:
        self._access = access
        self._agent_name = agent_name
        self._globs = tuple(rooms)
        self._jobs = jobs
        self._clock = clock
        self._on_back = on_back
        self._every_s = every_s
        self._state = State()
        self._looked_at: int | None = None
        self._unreachable = False
        self._told: set[str] = set()
        self._called = asyncio.Event()
        self.runs = False
        """Whether this process covers the rooms: one of a fleet does."""

    def look_now(self, room: str) -> bool:
        """The server says that something happened in a room: look at it before the next poll. False if this process
        does not cover the rooms.

        Only a hint. However often it comes, rooms are looked at one after the other, with a pause between.
        """
        if not self.runs:
            return False
        if room in self._told or len(self._told) >= _MOST_TOLD or not matches(self._globs, room):
            return True
        if may_need_an_agent(self._state, room, self._jobs(), self._clock.steady_ms()):
            self._told.add(room)
            self._called.set()
        return True

    @property
    def report(self) -> CoverageReport:
        return CoverageReport(
            heard=self._state.heard,
            uncovered=self._state.uncovered,
            looked_at=self._looked_at,
            unreachable=self._unreachable,
        )

    async def run(self) -> None:
        """Run until cancelled. A server that is down is asked again; raises LiveKitError where it refuses the key."""
        self.runs = True
        try:
            await self._run()
        finally:
            self.runs = False
            self._state, self._looked_at, self._unreachable = State(), None, False

    async def remove_leftovers(self, agents: Callable[[], Mapping[str, str]]) -> None:
        """Remove the agents of this process's jobs that died, until cancelled, while another one covers the rooms: the
        server lists them for 20 s more, and only this process sees that they are dead.

        ``agents``: the rooms of this process's agents, by identity.
        """
        left: dict[str, str] = {}
        async with self._access.client() as client:
            while True:
                there = dict(agents())
                for identity, room in left.items():
                    if identity in there or self.runs:
                        continue
                    try:
                        await _remove(client, room, identity)
                    except API_ERRORS as error:
                        if not isinstance(error, ServerError):  # the server cannot be reached
                            there[identity] = room
                left = there
                await asyncio.sleep(_LEFTOVERS_EVERY_S)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        poll_at = loop.time()
        async with self._access.client() as client:
            while True:
                began = loop.time()
                polls, told = began >= poll_at, frozenset(self._told)
                self._told.clear()
                self._called.clear()
                try:
                    await self._look(client, told, all_rooms=polls)
                except API_ERRORS as error:
                    explained = explain(error, self._access.url)
                    if not isinstance(explained, Unreachable):
                        raise explained from error
                    if not self._unreachable:
                        log.warning("%s Asking again until it answers.", explained)
                    self._unreachable = True
                else:
                    if self._unreachable:
                        log.info("The LiveKit server answers again")
                        self._on_back()
                    self._unreachable = False
                now = loop.time()
                if polls:
                    poll_at = now + max(self._every_s, _REST * (now - began))
                else:
                    await asyncio.sleep(min(_TOLD_REST_S, max(0, poll_at - now)))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(poll_at):
                        await self._called.wait()

    async def _look(self, client: api.LiveKitAPI, told: Set[str], *, all_rooms: bool) -> None:
        answer = await client.room.list_rooms(api.ListRoomsRequest(names=[] if all_rooms else sorted(told)))
        listed = [
            Listed(room.name, room.sid, room.num_participants)
            for room in answer.rooms
            if matches(self._globs, room.name)
        ]
        slots = asyncio.Semaphore(_LOOKS_AT_ONCE)
        jobs = self._jobs()
        rooms = due(self._state, listed, jobs, self._clock.steady_ms(), told=told)
        looks = await asyncio.gather(*(self._seen(client, slots, room) for room in rooms))
        seen = {room.sid: look for room, look in zip(rooms, looks, strict=True) if look is not None}
        # fetched again: a job may have been accepted during the request
        self._state, actions = plan(
            self._state, listed, seen, self._jobs(), self._clock.steady_ms(), all_rooms=all_rooms
        )
        self._looked_at = self._clock.now_ms()
        await asyncio.gather(*(self._act(client, slots, action) for action in actions))

    async def _seen(self, client: api.LiveKitAPI, slots: asyncio.Semaphore, room: Listed) -> Seen | None:
        async with slots:
            try:
                answer = await client.room.list_participants(api.ListParticipantsRequest(room=room.name))
            except ServerError as error:
                if error.code == ServerErrorCode.NOT_FOUND:
                    return None
                raise
        return presence(answer.participants, self._agent_name)

    async def _act(self, client: api.LiveKitAPI, slots: asyncio.Semaphore, action: Action) -> None:
        async with slots:
            try:
                if isinstance(action, RoomDispatch):
                    # the job logs that it listens; a room that stays uncovered is news
                    log.log(logging.INFO if action.again else logging.DEBUG, "Sending an agent to room %s", action.room)
                    request = api.CreateAgentDispatchRequest(agent_name=self._agent_name, room=action.room)
                    await client.agent_dispatch.create_dispatch(request)
                else:
                    log.info("Room %s has an agent of a dead process, or one too many: removing it", action.room)
                    await _remove(client, action.room, action.identity)
            except ServerError as error:
                if error.code != ServerErrorCode.NOT_FOUND:
                    raise


async def _remove(client: api.LiveKitAPI, room: str, identity: str) -> None:
    await client.room.remove_participant(api.RoomParticipantIdentity(room=room, identity=identity))


def matches(globs: Sequence[str], room: str) -> bool:
    """Whether a room's name matches ``capture.rooms``."""
    return any(fnmatchcase(room, glob) for glob in globs)


def presence(participants: Sequence[api.ParticipantInfo], agent_name: str) -> Seen:
    """The room's participants. The server puts the agent's name into the attributes of the agents that it
    dispatched."""
    dependent = (api.ParticipantInfo.Kind.AGENT, api.ParticipantInfo.Kind.EGRESS)
    ours = [
        participant
        for participant in participants
        if participant.kind == api.ParticipantInfo.Kind.AGENT
        and participant.attributes.get(ATTRIBUTE_AGENT_NAME) == agent_name
    ]
    ours.sort(key=lambda agent: (agent.joined_at_ms or agent.joined_at * 1000, agent.identity))
    return Seen(
        people=sum(participant.kind not in dependent for participant in participants),
        agents=tuple(
            Agent(
                agent.identity,
                worker=agent.attributes.get(WORKER_ATTRIBUTE, ""),
                connected=agent.state == api.ParticipantInfo.State.ACTIVE,
            )
            for agent in ours
        ),
    )
