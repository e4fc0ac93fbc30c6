"""A process that listened is lost, in mid-word: the receiver is told what ended, and is soon told of speech again."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.dispatch.receiver import Receiver
from tests.support.livekit.coverage import (
    HEARD_AGAIN_S,
    TOLD_S,
    VAD_ALONE,
    all_ended,
    assert_cut,
    assert_ends,
    ended_at,
    heard_again,
    noted,
    speaking,
    started_at,
    within,
)
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import Service, service

pytestmark = [pytest.mark.live, pytest.mark.speech]


@pytest.fixture
async def relay(server: LiveKitServer, receiver: Receiver, tmp_path: Path) -> AsyncIterator[Service]:
    async with service(server, receiver.url, tmp_path, detectors=VAD_ALONE) as running:
        await running.start()
        yield running


async def test_a_killed_job(server: LiveKitServer, receiver: Receiver, relay: Service) -> None:
    async with participant(server, "alice", "room") as alice:
        await alice.publish(speech_wav(), loop=True)
        await speaking(receiver, "alice")
        relay.kill_job()
        killed = time.monotonic()
        await heard_again(receiver, "alice", streams=2)
        within("killed job: told", killed, ended_at(receiver, "alice")[0], TOLD_S)
        within("killed job: heard again", killed, started_at(receiver, "alice")[1], HEARD_AGAIN_S)
    await all_ended(receiver, "alice")
    lost, _ = assert_ends(receiver, "alice", ["worker_lost", "disconnected"])
    assert_cut(lost, "worker_lost")


@pytest.mark.parametrize("jobs_too", [True, False], ids=["with its jobs", "alone"])
async def test_a_killed_relay_that_is_started_again(
    server: LiveKitServer, receiver: Receiver, relay: Service, jobs_too: bool
) -> None:
    async with participant(server, "alice", "room") as alice:
        await alice.publish(speech_wav(), loop=True)
        await speaking(receiver, "alice")
        await (relay.kill() if jobs_too else relay.kill_alone())
        killed = time.monotonic()
        await relay.launch()
        await relay.until_answering()
        back = time.monotonic()  # how long a process takes to start is the machine's own
        await relay.until_ready()
        ready = time.monotonic()
        await heard_again(receiver, "alice", streams=2)
        noted("killed relay: told, after the kill", killed, ended_at(receiver, "alice")[0])
        noted("killed relay: back, after the kill", killed, back)
        within("killed relay: told, after it is back", back, ended_at(receiver, "alice")[0], HEARD_AGAIN_S)
        within("killed relay: heard again after ready", ready, started_at(receiver, "alice")[1], HEARD_AGAIN_S)
    await all_ended(receiver, "alice")
    lost, _ = assert_ends(receiver, "alice", ["worker_lost", "disconnected"])
    if jobs_too:  # a job that is left alone listens on for a moment, perhaps to the end of a phrase
        assert_cut(lost, "worker_lost")


async def test_a_relay_that_was_stopped_and_is_started_again(
    server: LiveKitServer, receiver: Receiver, relay: Service
) -> None:
    async with participant(server, "alice", "room") as alice:
        await alice.publish(speech_wav(), loop=True)
        asked = await speaking(receiver, "alice")
        assert await relay.stop() == 0, relay.tail()
        within("stopped relay: told", asked, ended_at(receiver, "alice")[0], TOLD_S)
        await relay.start()
        ready = time.monotonic()
        await heard_again(receiver, "alice", streams=2)
        within("stopped relay: heard again after ready", ready, started_at(receiver, "alice")[1], HEARD_AGAIN_S)
    await all_ended(receiver, "alice")
    ended, _ = assert_ends(receiver, "alice", ["shutdown", "disconnected"])
    assert_cut(ended, "shutdown")


async def test_a_relay_that_is_drained_while_another_one_runs(
    server: LiveKitServer, receiver: Receiver, relay: Service, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with (
        service(server, receiver.url, other, detectors=VAD_ALONE) as successor,
        participant(server, "alice", "room") as alice,
    ):
        await alice.publish(speech_wav(), loop=True)
        await speaking(receiver, "alice")
        await successor.start()
        await speaking(receiver, "alice")
        assert len(started_at(receiver, "alice")) == 1, "both hear the room"
        assert await relay.stop() == 0, relay.tail()
        possible = ended_at(receiver, "alice")[0]
        await heard_again(receiver, "alice", streams=2)
        within("drained relay: heard by the other one", possible, started_at(receiver, "alice")[1], HEARD_AGAIN_S)
        await alice.leave()
        await all_ended(receiver, "alice")
        ended, _ = assert_ends(receiver, "alice", ["shutdown", "disconnected"])
        assert_cut(ended, "shutdown")
