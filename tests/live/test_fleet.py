"""Several processes on one log: whatever becomes of a worker, its rooms are soon heard by another, each stream once."""

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from livekit import api

from relay.capture.livekit.plan import WORKER_ATTRIBUTE
from relay.clock import SystemClock
from relay.outbox.log.processes import ProcessState
from relay.outbox.operator.access import Log, open_log
from tests.support.cli import speech_relay_process
from tests.support.dispatch.receiver import Receiver
from tests.support.livekit.coverage import (
    VAD_ALONE,
    all_ended,
    assert_ends,
    ended_at,
    heard_again,
    noted,
    speaking,
    started_at,
    streams_of,
    within,
)
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.outbox.outbox_store import postgres
from tests.support.outbox.postgres import PostgresServer
from tests.support.service import Service, service

pytestmark = [pytest.mark.live, pytest.mark.speech, pytest.mark.alone]

GIVE_UP_S = 60.0
ELSEWHERE = ("unshare", "--pid", "--fork", "--mount-proc")
"""Runs a command where others cannot know whether its process ids exist, as on another machine."""

MOVED_S = 20.0
"""Until another process hears a room: 5 s is promised, on a machine that has time for three workers."""
MOST_ROOMS = 12
"""LiveKit chooses by chance between workers with about the same load."""


class Fleet:
    """Processes on one log, and rooms in which somebody speaks. A speaker has the name of the room."""

    def __init__(
        self, server: LiveKitServer, receiver: Receiver, url: str, folder: Path, stack: AsyncExitStack
    ) -> None:
        self.server, self.receiver, self.url, self.folder, self.stack = server, receiver, url, folder, stack
        self.rooms: list[str] = []
        self._log: Log | None = None

    async def member(self, name: str, role: str, *, under: Sequence[str] = ()) -> Service:
        (self.folder / name).mkdir()
        variables = {"SPEECH_RELAY__OUTBOX__URL": self.url}
        made = service(
            self.server,
            self.receiver.url,
            self.folder / name,
            detectors=VAD_ALONE,
            variables=variables,
            role=role,
            under=under,
            warm=None,
        )
        member = await self.stack.enter_async_context(made)
        await member.launch()
        return member

    async def speaker(self) -> str:
        name = f"room{len(self.rooms)}"
        one = await self.stack.enter_async_context(participant(self.server, name, name))
        await one.publish(speech_wav(), loop=True)
        self.rooms.append(name)
        return name

    async def log(self) -> Log:
        if self._log is None:
            self._log = await self.stack.enter_async_context(open_log(self.url, SystemClock()))
        return self._log

    async def state(self, member: Service) -> ProcessState:
        found = await (await self.log()).inspection.fleet()
        return next(state for state in found.processes if state.pid == member.process.pid)

    async def covers(self, process: str) -> bool:
        """Whether the process with this id has the duty to cover the rooms."""
        return (await (await self.log()).inspection.fleet()).duties.get("coverage") == process

    async def is_idle(self, member: Service) -> bool:
        """Whether it says that it listens in no room."""
        return (await self.state(member)).jobs == 0

    async def hearers(self) -> dict[str, list[str]]:
        """The ids of the processes with an agent in each room."""
        found = {}
        async with self.server.api() as client:
            for room in self.rooms:
                there = (await client.room.list_participants(api.ListParticipantsRequest(room=room))).participants
                found[room] = [one.attributes[WORKER_ATTRIBUTE] for one in there if WORKER_ATTRIBUTE in one.attributes]
        return found

    async def heard_by(self, member: Service) -> list[str]:
        """The rooms with an agent of this process alone."""
        process = (await self.state(member)).id
        return [room for room, processes in (await self.hearers()).items() if processes == [process]]

    async def spread(self, one: Service, other: Service) -> None:
        """Let people speak in one room after another until both hear some."""
        while not (await self.heard_by(one) and await self.heard_by(other)):
            assert len(self.rooms) < MOST_ROOMS, f"all rooms are heard by one worker: {await self.hearers()}"
            room = await self.speaker()
            await speaking(self.receiver, room)

    async def moved(self, rooms: list[str], to: Service, what: str, since: float) -> None:
        """Wait until another process hears these rooms, and record how long that took."""
        for room in rooms:
            before = sum(at <= since for at in started_at(self.receiver, room))
            await heard_again(self.receiver, room, streams=before + 1)
            within(f"{what}: {room} heard again", since, started_at(self.receiver, room)[before], MOVED_S)
        assert set(rooms) <= set(await self.heard_by(to))


async def until(condition: Callable[[], Awaitable[bool]], why: str) -> None:
    """Wait for what nothing announces."""
    try:
        async with asyncio.timeout(GIVE_UP_S):
            while not await condition():  # noqa: ASYNC110 - it is in another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(why) from None


@pytest.fixture
async def fleet(
    server: LiveKitServer, receiver: Receiver, postgres_server: PostgresServer, tmp_path: Path
) -> AsyncIterator[Fleet]:
    async with postgres(postgres_server) as store, AsyncExitStack() as stack:
        yield Fleet(server, receiver, store.url, tmp_path, stack)


@pytest.mark.timeout(600)  # the server chooses the workers: it may take many rooms until both hear some
async def test_rooms_of_a_worker_that_hangs_dies_or_drains_are_heard_by_another(fleet: Fleet) -> None:
    receiver = fleet.receiver
    sender, one, other = [
        await fleet.member(name, role)
        for name, role in (("sender", "dispatch"), ("one", "worker"), ("other", "worker"))
    ]
    for member in (sender, one, other):
        await member.until_ready()
    await fleet.spread(one, other)
    ends: dict[str, list[str]] = {room: [] for room in fleet.rooms}

    # the process with the coverage hangs, and its jobs do not: another covers the rooms, and nothing is lost
    covering, second = (one, other) if await fleet.covers((await fleet.state(one)).id) else (other, one)
    rooms = await fleet.heard_by(covering)
    covering.process.suspend()
    hangs, successor = time.monotonic(), (await fleet.state(second)).id
    await until(lambda: fleet.covers(successor), "the coverage is not taken over")
    noted("worker hangs: coverage taken over", hangs, time.monotonic())
    fresh = await fleet.speaker()  # the hanging one is still registered, and may be asked first
    ends[fresh] = []
    await heard_again(receiver, fresh, streams=1)
    noted("worker hangs: a new room is heard", hangs, started_at(receiver, fresh)[0])
    for room in rooms:
        await speaking(receiver, room)
    assert not [room for room in fleet.rooms if ended_at(receiver, room)], "a room is lost with the live job in it"
    covering.process.resume()

    # all of it hangs
    rooms = await fleet.heard_by(covering)
    covering.signal_group(signal.SIGSTOP)
    await fleet.moved(rooms, second, "worker and its jobs hang", time.monotonic())
    covering.signal_group(signal.SIGCONT)
    for room in rooms:
        ends[room].append("worker_lost")
    await until(lambda: fleet.is_idle(covering), "a job that was replaced goes on")

    # it dies, and has the coverage
    rooms = await fleet.heard_by(second)
    assert await fleet.covers(successor)
    await speaking(receiver, rooms[0])
    await second.kill()
    await fleet.moved(rooms, covering, "worker killed", time.monotonic())
    for room in rooms:
        ends[room].append("worker_lost")

    # it drains
    await second.start()
    rooms = await fleet.heard_by(covering)
    asked = time.monotonic()
    stopping = asyncio.create_task(covering.stop())
    await fleet.moved(rooms, second, "worker drained", asked)
    assert await stopping == 0, covering.tail()
    for room in rooms:
        ends[room].append("shutdown")

    async with fleet.server.api() as client:
        for room in fleet.rooms:
            await client.room.delete_room(api.DeleteRoomRequest(room=room))
    for room in fleet.rooms:
        await all_ended(receiver, room)
        last = [stream.end.data.reason for stream in streams_of(receiver, room) if stream.end][-1]
        assert_ends(receiver, room, [*ends[room], last])
    assert await sender.stop() == 0, sender.tail()


async def test_a_relay_whose_machine_is_lost_is_replaced_by_another(fleet: Fleet) -> None:
    probe = await asyncio.create_subprocess_exec(*ELSEWHERE, "true", stderr=subprocess.DEVNULL)
    if await probe.wait():
        pytest.skip("no right to make a namespace for process ids")
    one = await fleet.member("one", "run", under=ELSEWHERE)
    await one.until_ready()
    room = await fleet.speaker()
    await speaking(fleet.receiver, room)
    other = await fleet.member("other", "run")
    await other.until_ready()
    await speaking(fleet.receiver, room)
    await one.kill()
    await fleet.moved([room], other, "relay elsewhere killed", time.monotonic())
    log = await fleet.log()
    dead, alive = (await log.inspection.fleet()).processes[::-1]
    assert (dead.role, alive.role) == ("run", "run")
    assert dead.host != alive.host


async def test_processes_on_one_file_share_rooms_and_one_of_them_delivers(
    server: LiveKitServer, receiver: Receiver, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        fleet = Fleet(server, receiver, f"sqlite:///{tmp_path}/relay.db", tmp_path, stack)
        relay, worker = await fleet.member("relay", "run"), await fleet.member("worker", "worker")
        await relay.until_ready()
        await worker.until_ready()
        await fleet.spread(relay, worker)  # what the worker hears arrives, too
        second = await asyncio.to_thread(
            speech_relay_process, "dispatch", cwd=tmp_path / "worker", SPEECH_RELAY__OUTBOX__URL=fleet.url
        )
        assert second.returncode == 2
        assert second.stderr.splitlines()[-1].endswith(
            "another relay has it: stop that one, or give this one its own outbox.url"
        )
        rooms = await fleet.heard_by(relay)
        await relay.kill()
        killed = time.monotonic()
        sender = await fleet.member("sender", "dispatch")
        await sender.until_ready()
        noted("one file: a dispatcher is ready", killed, time.monotonic())
        await fleet.moved(rooms, worker, "one file: relay killed", killed)

        def ends() -> list[list[str]]:
            return [[each.end.data.reason for each in streams_of(receiver, room) if each.end] for room in rooms]

        await receiver.wait_for(lambda: ends() == [["worker_lost"]] * len(rooms))
        assert await worker.stop() == 0, worker.tail()
        for room in fleet.rooms:
            await all_ended(receiver, room)
        assert await sender.stop() == 0, sender.tail()
