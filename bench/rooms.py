"""(k) Rooms that start together: time from publishing to the first heard frame, by how the relay learns of them."""

import asyncio
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.crowd import built, crowd
from tests.support.livekit.livekit_server import LiveKitServer, binary, livekit_server
from tests.support.livekit.participant import speech_wav
from tests.support.service import Service, service

TURNS, ROUNDS = 2, 3
AT_ONCE = (1, 8)
CONFIGURED = (
    ("default", "", False),
    ("told by LiveKit, a look every 5 s", "poll_interval: 5s", True),
    ("a look every 5 s", "poll_interval: 5s", False),
    ("one process waits", "max_warm_processes: 1", False),
)
"""In words, the keys of ``capture``, and whether the LiveKit server sends its webhooks to the relay."""
SETTLE_S = 4.0
"""The rooms of the round before have ended, and as many processes wait as will: their number has not changed for this
long."""

Took = dict[int, list[float]]
"""Rooms at once → seconds."""


async def measure() -> None:
    print("\n(k) rooms that begin together: publish → first frame")
    if binary() is None:
        print("    not measured, there is no livekit-server (make bench builds it where Go is)")
        return
    with tempfile.TemporaryDirectory() as folder:
        program = await asyncio.to_thread(built, Path(folder))
        await _measured(program)


async def _measured(program: Path) -> None:
    took: dict[str, Took] = {words: {many: [] for many in AT_ONCE} for words, _, _ in CONFIGURED}
    firsts: dict[str, Took] = {words: {many: [] for many in AT_ONCE} for words, _, _ in CONFIGURED}
    for _ in range(TURNS):
        for words, capture, tells_relay in CONFIGURED:
            async with livekit_server(tells_relay=tells_relay) as server:
                with tempfile.TemporaryDirectory() as folder:
                    await _rooms(program, server, Path(folder), capture, took[words], firsts[words])
    for many in AT_ONCE:
        for words, _, _ in CONFIGURED:
            print(f"    {many} at once, {words}: {_in_words(took[words][many], firsts[words][many])}")


def _in_words(took: list[float], firsts: list[float]) -> str:
    p95 = sorted(took)[int(len(took) * 0.95) - (len(took) < 20)]
    return (
        f"median {statistics.median(took):.2f} s, p95 {p95:.2f} s, the slowest of {len(took)} {max(took):.2f} s, "
        f"of the rounds before them {max(firsts):.2f} s"
    )


async def _rooms(program: Path, server: LiveKitServer, folder: Path, capture: str, took: Took, firsts: Took) -> None:
    async with (
        receiving() as receiver,
        service(server, receiver.url, folder, capture=capture, detectors="stt: {provider: none}", warm=None) as relay,
    ):
        await relay.start(within=60)
        for many in AT_ONCE:
            for number in range(ROUNDS + 1):
                await _settled(relay)
                rooms = [f"{many}-{number}-{room}" for room in range(many)]
                # from the first one the relay learns how many rooms begin together
                (took if number else firsts)[many] += await _first_frames_s(program, server, receiver, rooms)
        await relay.stop()


async def _settled(relay: Service) -> None:
    since, ready = time.monotonic(), -1
    while ready <= 0 or time.monotonic() - since < SETTLE_S:
        await asyncio.sleep(0.5)
        now = -1 if relay.jobs() else len(relay.waiting())
        if now != ready:
            since, ready = time.monotonic(), now


async def _first_frames_s(program: Path, server: LiveKitServer, receiver: Receiver, rooms: list[str]) -> list[float]:
    async with crowd(program, server, rooms, speech_wav(), ["guest"] * len(rooms), speaking=True) as guests:
        published = await guests.published()
        await receiver.wait_for(lambda: len(_started(receiver, rooms)) == len(rooms), within=30)
    started = _started(receiver, rooms)
    return [started[room] - at / 1000 for room, at in zip(rooms, published, strict=True)]


def _started(receiver: Receiver, rooms: list[str]) -> dict[str, float]:
    """The rooms that are heard, with the time of their first frame in epoch seconds."""
    events = (request.json() for request in receiver.answered)
    return {
        # where none arrived for so long that the stream was reported without, it is at least this late
        event["room"]["name"]: datetime.fromisoformat(
            event["data"]["first_frame_at"] or event["timing"]["emitted_at"]
        ).timestamp()
        for event in events
        if event["type"] == "stream.started" and event["room"]["name"] in rooms
    }
