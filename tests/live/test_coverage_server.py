"""The LiveKit server is away, for a moment, for longer, or when the relay starts: it is waited for, and then its rooms
are heard at once."""

import asyncio
import time
from pathlib import Path

import pytest
from livekit import api

from tests.support.dispatch.receiver import Receiver
from tests.support.livekit.coverage import (
    GIVE_UP_S,
    HEARD_AGAIN_S,
    TOLD_S,
    VAD_ALONE,
    all_ended,
    assert_ends,
    ended_at,
    heard_again,
    speaking,
    started_at,
    streams_of,
    within,
)
from tests.support.livekit.livekit_server import LiveKitServer, livekit_server
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import Service, service

pytestmark = [pytest.mark.live, pytest.mark.speech]


async def published(server: LiveKitServer, room: str, identity: str) -> float:
    """Wait until the server has a track of somebody's; the moment."""
    async with asyncio.timeout(GIVE_UP_S), server.api() as client:
        while True:
            try:
                answer = await client.room.list_participants(api.ListParticipantsRequest(room=room))
            except api.TwirpError:
                answer = api.ListParticipantsResponse()
            if any(who.identity == identity and who.tracks for who in answer.participants):
                return time.monotonic()
            await asyncio.sleep(0.05)


async def until_ready_says(relay: Service, *parts: str) -> None:
    """Wait until these parts, and no others, are not ready."""
    said: dict[str, str] | None = None
    async with asyncio.timeout(GIVE_UP_S):
        while said is None or set(said) != set(parts):
            await asyncio.sleep(0.05)
            said = await asyncio.to_thread(relay.readiness)


async def test_a_server_that_is_restarted(receiver: Receiver, tmp_path: Path) -> None:
    async with (
        livekit_server() as server,
        service(server, receiver.url, tmp_path, detectors=VAD_ALONE) as relay,
        participant(server, "alice", "room") as alice,
    ):
        await relay.start()
        await alice.publish(speech_wav(), loop=True)
        await speaking(receiver, "alice")
        await server.kill()
        killed = time.monotonic()
        await until_ready_says(relay, "worker", "coverage")
        await server.start()
        possible = await published(server, "room", "alice")
        await heard_again(receiver, "alice", streams=2)
        within("restarted server: told", killed, ended_at(receiver, "alice")[0], TOLD_S)
        within("restarted server: heard again", possible, started_at(receiver, "alice")[1], HEARD_AGAIN_S)
        await until_ready_says(relay)
        former, new = streams_of(receiver, "alice")
        assert former.events[0].room.sid != new.events[0].room.sid
        assert former.events[0].participant.sid != new.events[0].participant.sid
        await alice.leave()
        await all_ended(receiver, "alice")
        assert_ends(receiver, "alice", ["disconnected", "disconnected"])


async def test_a_server_that_is_away_for_long(receiver: Receiver, tmp_path: Path) -> None:
    async with (
        livekit_server() as server,
        service(server, receiver.url, tmp_path, detectors=VAD_ALONE) as relay,
    ):
        await relay.start()
        async with participant(server, "alice", "room") as alice:
            await alice.publish(speech_wav(), loop=True)
            await speaking(receiver, "alice")
            await server.kill()
            killed = time.monotonic()
        await receiver.wait_for(lambda: bool(ended_at(receiver, "alice")), within=GIVE_UP_S)
        within("server away: told", killed, ended_at(receiver, "alice")[0], TOLD_S)
        await asyncio.sleep(max(0.0, killed + 25 - time.monotonic()))
        await server.start()
        async with participant(server, "bob", "room") as bob:
            await bob.publish(speech_wav(), loop=True)
            possible = time.monotonic()
            await heard_again(receiver, "bob", streams=1)
            within("server away: heard again", possible, started_at(receiver, "bob")[0], HEARD_AGAIN_S)
        await all_ended(receiver, "bob")
        assert_ends(receiver, "bob", ["disconnected"])
        assert_ends(receiver, "alice", ["disconnected"])
        assert len(relay.lines("Asking again until it answers")) == 1, (
            "the operator must read once that the server is away"
        )
        assert len(relay.lines("failed to connect to livekit")) == 0, "the SDK's own lines about it must be left out"


async def test_a_server_that_is_down_when_the_relay_starts(receiver: Receiver, tmp_path: Path) -> None:
    async with (
        livekit_server(started=False) as server,
        service(server, receiver.url, tmp_path, detectors=VAD_ALONE) as relay,
    ):
        await relay.launch()
        await until_ready_says(relay, "worker", "coverage")
        metrics = await asyncio.to_thread(relay.metrics)
        assert (metrics["speech_relay_worker_registered"], metrics["speech_relay_livekit_reachable"]) == (0, 0)
        await asyncio.sleep(5)  # for as long as it might say so again
        assert len(relay.lines("cannot be reached")) == 1, relay.tail()
        assert relay.lines("Registered") == []
        assert len(relay.lines("Waiting for it.")) == 1, "the operator must read once that the server is waited for"

        await server.start()
        back = time.monotonic()
        async with participant(server, "alice", "room") as alice:
            await alice.publish(speech_wav(), loop=True)
            await relay.until_ready()
            within("server down at start: ready", back, time.monotonic(), HEARD_AGAIN_S)
            await heard_again(receiver, "alice", streams=1)
            within("server down at start: heard", back, started_at(receiver, "alice")[0], HEARD_AGAIN_S)
        assert len(relay.lines("Registered with the LiveKit server")) == 1
        assert len(relay.lines("cannot be reached")) == 1
        metrics = await asyncio.to_thread(relay.metrics)
        assert (metrics["speech_relay_worker_registered"], metrics["speech_relay_livekit_reachable"]) == (1, 1)
