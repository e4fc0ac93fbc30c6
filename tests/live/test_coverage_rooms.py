"""Rooms that are there before the relay, many at once, and a relay that is too busy to take any."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dispatch.receiver import Receiver
from tests.support.livekit.coverage import (
    GIVE_UP_S,
    HEARD_AGAIN_S,
    VAD_ALONE,
    all_ended,
    assert_ends,
    heard_again,
    started_at,
    within,
)
from tests.support.livekit.livekit_server import livekit_server
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import Service, service

pytestmark = [pytest.mark.live, pytest.mark.speech, pytest.mark.alone]

ROOMS = 4
BUSY = 0.9


async def test_rooms_that_are_older_than_the_relay_are_heard_at_once(receiver: Receiver, tmp_path: Path) -> None:
    people = [f"person-{n}" for n in range(ROOMS)]
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(livekit_server())
        relay = await stack.enter_async_context(service(server, receiver.url, tmp_path, detectors=VAD_ALONE, warm=None))
        async with contextlib.AsyncExitStack() as rooms:
            for who in people:
                somebody = await rooms.enter_async_context(participant(server, who, f"room of {who}"))
                await somebody.publish(speech_wav(), loop=True)
            await relay.start()
            ready = time.monotonic()
            for who in people:
                await heard_again(receiver, who, streams=1)
                within(f"older rooms: {who}", ready, started_at(receiver, who)[0], HEARD_AGAIN_S)
            metrics = await asyncio.to_thread(relay.metrics)
            assert (metrics["speech_relay_rooms_heard"], metrics["speech_relay_rooms_unheard"]) == (ROOMS, 0), (
                "every room that is older than the relay must be heard"
            )
        for who in people:
            await all_ended(receiver, who)
            assert_ends(receiver, who, ["disconnected"])


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Every processor busy, with what nobody else wants of it."""
    work = "import os\nos.nice(19)\nwhile True: pass"
    burning = [subprocess.Popen([sys.executable, "-c", work]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
        for process in burning:
            process.wait()


async def until_unheard(relay: Service, rooms: int) -> None:
    unheard = -1.0
    async with asyncio.timeout(GIVE_UP_S):
        while unheard != rooms:
            await asyncio.sleep(0.05)
            unheard = (await asyncio.to_thread(relay.metrics))["speech_relay_rooms_unheard"]


async def until_refusing(relay: Service, refusing: bool) -> None:
    said: dict[str, str] | None = None
    async with asyncio.timeout(GIVE_UP_S):
        while said is None or ("load" in said) is not refusing:
            await asyncio.sleep(0.05)
            said = await asyncio.to_thread(relay.readiness)


async def test_a_relay_that_is_too_busy_says_so_and_takes_the_room_when_it_is_not(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with (
        livekit_server(target_load=0.7) as server,  # as it is unless told: what reaches the worker is part of it
        service(server, receiver.url, tmp_path, detectors=VAD_ALONE, max_load=BUSY) as relay,
    ):
        await relay.start()
        async with contextlib.AsyncExitStack() as call:
            with busy_machine():
                await until_refusing(relay, True)
                alice = await call.enter_async_context(participant(server, "alice", "room"))
                await alice.publish(speech_wav(), loop=True)
                await until_unheard(relay, 1)
                await asyncio.sleep(6)  # for as long as it might be sent for, or said, again
                metrics = await asyncio.to_thread(relay.metrics)
                assert metrics["speech_relay_worker_refusing"] == 1
                assert metrics["speech_relay_cpu_load_ratio"] > BUSY * 0.9
                assert metrics["speech_relay_cpu_load_limit_ratio"] == BUSY
                readiness = await asyncio.to_thread(relay.readiness)
                assert readiness is not None
                assert set(readiness) == {"load"}, "/readyz must say that the machine is too busy, and nothing else"
                assert len(relay.lines("new rooms are refused")) == 1, relay.tail()
                assert relay.lines("sending an agent") == [], "a relay that is too busy must take no room"
                assert started_at(receiver, "alice") == [], "a relay that is too busy must take no room"
            await until_refusing(relay, False)
            possible = time.monotonic()
            await heard_again(receiver, "alice", streams=1)
            within("no longer busy: heard", possible, started_at(receiver, "alice")[0], HEARD_AGAIN_S)
            assert (await asyncio.to_thread(relay.metrics))["speech_relay_worker_refusing"] == 0
        await all_ended(receiver, "alice")
        assert_ends(receiver, "alice", ["disconnected"])
