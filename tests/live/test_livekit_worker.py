"""The worker and its coverage on a real LiveKit server: every room is heard, once, in a job process of its own."""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from livekit import api

from relay.capture.livekit import plan
from relay.capture.livekit.access import Access, verify_access
from relay.capture.worker.coverage import Coverage, presence
from relay.capture.worker.worker import AGENT_NAME, Worker
from relay.clock import SystemClock
from relay.errors import LiveKitError
from tests.support.livekit import recording_job
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer, livekit_server
from tests.support.livekit.participant import participant, speech_wav
from tests.support.livekit.recording_job import Settings, notes
from tests.support.outbox.outbox_store import HandClock

pytestmark = pytest.mark.live


def access_to(server: LiveKitServer) -> Access:
    return Access(server.url, API_KEY, API_SECRET)


class Service:
    """A worker and its coverage, as the service runs them."""

    def __init__(self, server: LiveKitServer, settings: Settings, rooms: tuple[str, ...], worker_id: str) -> None:
        access = access_to(server)
        self.worker = Worker(
            access,
            entry=recording_job.entry,
            on_session_end=recording_job.on_session_end,
            setup=functools.partial(recording_job.prepare, settings),
            rooms=rooms,
            grace_s=8.0,
            worker_id=worker_id,
            load_threshold=10.0,  # the machine that runs the tests may be busy
        )
        self.coverage = Coverage(
            access, agent_name=AGENT_NAME, rooms=rooms, jobs=self.worker.jobs, clock=SystemClock(), every_s=0.1
        )


@contextlib.asynccontextmanager
async def serving(
    server: LiveKitServer, settings: Settings, *, rooms: tuple[str, ...] = ("*",), worker_id: str = "test"
) -> AsyncIterator[Service]:
    service = Service(server, settings, rooms, worker_id)
    running = asyncio.create_task(service.worker.run())
    covering = asyncio.create_task(service.coverage.run())
    try:
        yield service
    finally:
        covering.cancel()
        await service.worker.stop()
        await running
        with contextlib.suppress(asyncio.CancelledError):
            await covering


async def until(condition: Callable[[], bool], *, within: float = 60.0) -> None:
    """Other processes write what is waited for, so there is nothing to be woken by."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - no event crosses from a job process to its test
            await asyncio.sleep(0.02)


async def agents_in(server: LiveKitServer, room: str) -> list[str]:
    async with server.api() as client:
        answer = await client.room.list_participants(api.ListParticipantsRequest(room=room))
    return [agent.identity for agent in presence(answer.participants, AGENT_NAME).agents]


async def settled(server: LiveKitServer, room: str) -> None:
    """Until the room has one agent, for longer than another takes to come."""
    calm = 0
    while calm < 10:
        calm = calm + 1 if len(await agents_in(server, room)) == 1 else 0
        await asyncio.sleep(0.1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(notes=tmp_path / "notes")


async def test_rooms_from_before_and_after_are_heard_once_and_stopping_ends_their_streams(settings: Settings) -> None:
    async with livekit_server() as server, participant(server, "alice", "early") as alice:
        await alice.publish(speech_wav(), loop=True)
        async with serving(server, settings) as service:
            async with asyncio.timeout(30):
                await service.worker.registered.wait()
            # it was there before the relay, so LiveKit alone would never send for it
            await until(lambda: len(notes(settings, "first_frame")) == 1)
            (heard,) = notes(settings, "first_frame")
            assert (heard["who"], heard["room"]) == ("alice", "early")
            assert heard["pid"] != os.getpid()

            async with participant(server, "bob", "late") as bob, participant(server, "carol", "odd") as carol:
                await asyncio.gather(bob.publish(speech_wav(), loop=True), carol.publish(speech_wav(), loop=True))
                await until(lambda: len(notes(settings, "first_frame")) == 3)
                assert {each["who"] for each in notes(settings, "first_frame")} == {"alice", "bob", "carol"}
                # a dispatch by hand, or a second one, does not bring a second agent
                async with server.api() as client:
                    request = api.CreateAgentDispatchRequest(agent_name=AGENT_NAME, room="early")
                    await asyncio.gather(*(client.agent_dispatch.create_dispatch(request) for _ in range(2)))
                await until(lambda: service.coverage.report.heard == 3 and service.coverage.report.uncovered == ())
                assert [len(await agents_in(server, room)) for room in ("early", "late", "odd")] == [1, 1, 1], (
                    "each room must have exactly one agent"
                )
                assert len(notes(settings, "job")) == 3

            began = time.monotonic()
            await service.worker.stop()
            assert time.monotonic() - began < 60, "it does not wait for the rooms to end"
            assert {each["who"]: each["reason"] for each in notes(settings, "ended")} == {
                "alice": "shutdown",
                "bob": "disconnected",
                "carol": "disconnected",
            }
            assert await agents_in(server, "early") == [], "the relay must leave its rooms when it stops"


async def test_rooms_that_do_not_match_are_left_alone_even_when_dispatched_to(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "livekit.agents")
    async with (
        livekit_server() as server,
        participant(server, "alice", "support-1") as alice,
        participant(server, "bob", "private") as bob,
        serving(server, settings, rooms=("support-*",)),
    ):
        await asyncio.gather(alice.publish(), bob.publish())
        await until(lambda: len(notes(settings, "first_frame")) == 1)
        async with server.api() as client:
            request = api.CreateAgentDispatchRequest(agent_name=AGENT_NAME, room="private")
            await client.agent_dispatch.create_dispatch(request)
        await until(lambda: "private" in {getattr(record, "room", None) for record in caplog.records})
        assert await agents_in(server, "private") == [], "a room that the configuration leaves out must have no agent"
        (job,) = notes(settings, "job")
        assert job["room"] == "support-1"
        assert job["loop"].startswith("uvloop"), "LiveKit makes a job's event loop after its setup, by the policy"


async def test_a_killed_job_is_replaced_and_what_it_left_behind_removed(settings: Settings) -> None:
    async with (
        livekit_server() as server,
        participant(server, "alice", "room") as alice,
        serving(server, settings) as service,
    ):
        await alice.publish(speech_wav(), loop=True)
        await until(lambda: len(notes(settings, "first_frame")) == 1)
        await until(lambda: service.coverage.report.heard == 1)
        os.kill(notes(settings, "first_frame")[0]["pid"], signal.SIGKILL)
        killed = time.monotonic()
        await until(lambda: len(notes(settings, "first_frame")) == 2)
        assert time.monotonic() - killed < 15, "the server itself would list the dead agent for 20 s"
        await until(lambda: service.coverage.report.heard == 1)
        assert len(await agents_in(server, "room")) == 1, "the room must have exactly one agent again"
        assert len(notes(settings, "job")) == 2


async def test_of_two_agents_in_a_room_the_first_stays(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "VERIFY_OWN_MS", 500)
    async with (
        livekit_server() as server,
        serving(server, settings, worker_id="one") as one,
        serving(server, settings, worker_id="other") as other,
        participant(server, "alice", "first") as alice,
        participant(server, "bob", "second") as bob,
        asyncio.timeout(40),
    ):
        await asyncio.gather(alice.publish(speech_wav(), loop=True), bob.publish(speech_wav(), loop=True))
        await until(lambda: one.coverage.report.heard == other.coverage.report.heard == 2)
        # both have sent for both rooms, at the same moment
        for room in ("first", "second"):
            await settled(server, room)
        (first,) = await agents_in(server, "first")
        before = len(notes(settings, "job"))
        async with server.api() as client:
            request = api.CreateAgentDispatchRequest(agent_name=AGENT_NAME, room="first")
            while len(notes(settings, "job")) == before:
                # given to either worker, and refused by the one that hears the room
                await client.agent_dispatch.create_dispatch(request)
                await asyncio.sleep(0.2)
        await settled(server, "first")
        assert await agents_in(server, "first") == [first], "of two agents the first must stay"
        await until(lambda: one.coverage.report.heard == other.coverage.report.heard == 2)


async def test_a_signal_to_the_whole_process_group_does_not_kill_jobs(settings: Settings) -> None:
    async with livekit_server() as server, participant(server, "alice", "room") as alice, serving(server, settings):
        await alice.publish(speech_wav(), loop=True)
        await until(lambda: len(notes(settings, "first_frame")) == 1)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(notes(settings, "first_frame")[0]["pid"], number)
        await alice.leave()
        await until(lambda: len(notes(settings, "session_end")) == 1)
        assert [each["reason"] for each in notes(settings, "ended")] == ["disconnected"], (
            "a signal to the process group must not end a job in mid-speech"
        )


async def test_a_job_that_hangs_does_not_hold_up_a_stop(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async with livekit_server() as server, participant(server, "alice", "room") as alice:
        worker = Worker(
            access_to(server),
            entry=recording_job.entry,
            on_session_end=recording_job.hang_on_session_end,
            setup=functools.partial(recording_job.prepare, settings),
            rooms=("*",),
            grace_s=2.0,
            load_threshold=10.0,
        )
        running = asyncio.create_task(worker.run())
        await alice.publish()
        async with server.api() as client, asyncio.timeout(30):
            await worker.registered.wait()
            request = api.CreateAgentDispatchRequest(agent_name=AGENT_NAME, room="room")
            await client.agent_dispatch.create_dispatch(request)
        await until(lambda: len(notes(settings, "first_frame")) == 1)
        began = time.monotonic()
        await worker.stop()
        await running
        assert time.monotonic() - began < 60, "a job that hangs must not hold up a stop"
        assert "killing them" in caplog.text
        job = notes(settings, "first_frame")[0]["pid"]
        await until(lambda: not Path(f"/proc/{job}").exists())


async def test_a_server_that_is_down_is_waited_for(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async with livekit_server(started=False) as server, serving(server, settings) as service:
        await until(lambda: "Waiting for it" in caplog.text)
        assert not service.worker.registered.is_set()
        await until(lambda: service.coverage.report.unreachable)
        await server.start()
        async with asyncio.timeout(30):
            await service.worker.registered.wait()
        await until(lambda: not service.coverage.report.unreachable)
        assert caplog.text.count("Waiting for it") == 1
        assert "Traceback" not in caplog.text


async def test_an_agent_that_does_not_come_is_sent_again_though_the_clock_was_set_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="relay.capture.worker.coverage")
    clock = HandClock()
    async with livekit_server() as server, participant(server, "alice", "room"):
        coverage = Coverage(
            access_to(server),
            agent_name=AGENT_NAME,
            rooms=("*",),
            jobs=lambda: plan.Jobs("test"),
            clock=clock,
            every_s=0.1,
        )
        covering = asyncio.create_task(coverage.run())
        await until(lambda: caplog.text.count("Sending an agent to room") == 1)
        clock.set_by = -3_600_000
        clock.at += plan.DISPATCH_MS
        await until(lambda: caplog.text.count("Sending an agent to room") == 2)
        covering.cancel()
        await asyncio.wait([covering])


async def test_a_server_that_never_comes_does_not_hold_up_a_stop(settings: Settings) -> None:
    async with livekit_server(started=False) as server:
        service = Service(server, settings, ("*",), "test")
        running = asyncio.create_task(service.worker.run())
        await asyncio.sleep(0)
        began = time.monotonic()
        await service.worker.stop()
        await running
        assert time.monotonic() - began < 15, "a server that never answers must not hold up a stop"


async def test_a_wrong_secret_is_an_error_with_its_cure() -> None:
    async with livekit_server() as server:
        wrong = Access(server.url, API_KEY, "not-the-secret-not-the-secret-not-the-secret")
        with pytest.raises(LiveKitError, match="LIVEKIT_API_SECRET"):
            await verify_access(wrong)
        with pytest.raises(LiveKitError, match="LIVEKIT_API_KEY"):
            await verify_access(Access(server.url, "nobody", API_SECRET))
        with pytest.raises(LiveKitError, match="LIVEKIT_API_SECRET"):
            await Coverage(
                wrong,
                agent_name=AGENT_NAME,
                rooms=("*",),
                jobs=lambda: pytest.fail("asked"),
                clock=SystemClock(),
                every_s=0.1,
            ).run()
        facts = await verify_access(access_to(server))
        assert (facts.url, facts.rooms) == (server.url, 0)
    with pytest.raises(LiveKitError, match="cannot be reached"):
        await verify_access(access_to(server))


async def test_a_killed_server_that_is_back_is_heard_again_by_the_same_job(settings: Settings) -> None:
    async with (
        livekit_server() as server,
        participant(server, "alice", "room") as alice,
        serving(server, settings) as service,
    ):
        await alice.publish(speech_wav(), loop=True)
        await until(lambda: len(notes(settings, "first_frame")) == 1)
        await server.kill()
        await until(lambda: service.coverage.report.unreachable)
        await server.start()
        await until(lambda: len(notes(settings, "first_frame")) == 2, within=20)
        await until(lambda: service.coverage.report.heard == 1, within=20)
        assert len(await agents_in(server, "room")) == 1, "the room must have exactly one agent again"
        assert len({each["pid"] for each in notes(settings, "first_frame")}) == 1
