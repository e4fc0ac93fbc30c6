"""(k) Rooms that start together: time from publishing to the first heard frame, against one waiting process."""

import asyncio
import statistics
import tempfile
from datetime import datetime
from pathlib import Path

from tests.support.livekit_server import LiveKitServer, binary, livekit_server
from tests.support.participant import participant, speech_wav
from tests.support.receiver import Receiver, receiving
from tests.support.service import service

ROUNDS = 5
AT_ONCE = (1, 8)
SETTLE_S = 4.0
"""Time between two rounds: rooms end, and processes wait for the next ones."""


async def measure() -> None:
    print("\n(k) rooms that begin together: publish → first frame")
    if binary() is None:
        print("    not measured, there is no livekit-server (make bench builds it where Go is)")
        return
    async with livekit_server() as server:
        for words, capture in (("default", ""), ("one process waits", "max_warm_processes: 1")):
            with tempfile.TemporaryDirectory() as folder:
                await _rooms(server, Path(folder), words, capture)


async def _rooms(server: LiveKitServer, folder: Path, words: str, capture: str) -> None:
    async with (
        receiving() as receiver,
        service(server, receiver.url, folder, capture=capture, detectors="stt: {provider: none}") as relay,
    ):
        await relay.start(within=60)
        for many in AT_ONCE:
            took: list[float] = []
            for number in range(ROUNDS):
                await asyncio.sleep(SETTLE_S)
                rooms = [f"{many}-{number}-{room}" for room in range(many)]
                took += await asyncio.gather(*(_first_frame_s(server, receiver, room) for room in rooms))
            p95 = sorted(took)[int(len(took) * 0.95) - (len(took) < 20)]
            print(
                f"    {words}, {many} at once: median {statistics.median(took):.2f} s, p95 {p95:.2f} s, "
                f"the slowest of {len(took)} {max(took):.2f} s"
            )
        await relay.stop()


async def _first_frame_s(server: LiveKitServer, receiver: Receiver, room: str) -> float:
    async with participant(server, "guest", room) as guest:
        await guest.publish(speech_wav())
        await receiver.wait_for(lambda: _started_at(receiver, room) is not None, within=30)
        began = _started_at(receiver, room)
        assert began is not None
        return began - guest.when("publish") / 1000


def _started_at(receiver: Receiver, room: str) -> float | None:
    for event in (request.json() for request in receiver.answered):
        if event["type"] == "stream.started" and event["room"]["name"] == room:
            return datetime.fromisoformat(event["data"]["first_frame_at"]).timestamp()
    return None
