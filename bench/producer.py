"""A process that appends events like a job process: ``python -m bench.producer URL STREAMS EVENTS RATE INTERIMS SEED``.

EVENTS are finals; INTERIMS is the number of interims before each of them. RATE is appends per second over all streams,
interims included, 0 for full speed. Each append waits for its commit on its own stream only. Prints ``ready`` when its
streams are open, starts at the first line on its standard input, and prints the p50 and p99 of the finals' appends in
milliseconds at the end. The streams stay open for later measurements.
"""

import asyncio
import random
import statistics
import sys
import time
from contextlib import AsyncExitStack
from itertools import count

import uvloop

from bench.child import Child
from bench.workload import final, interim
from relay.clock import SystemClock
from relay.ids import new_id
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream


class Producer(Child):
    """That process, controlled from the bench."""

    def __init__(self, url: str, *, streams: int, events: int, rate: float, interims: int = 0, seed: int = 1) -> None:
        super().__init__("bench.producer", url, streams, events, rate, interims, seed)

    async def appends(self) -> tuple[float, float]:
        """The p50 and p99 of its appends, in milliseconds, when it is done."""
        p50, p99 = (await self.line()).split()
        return float(p50), float(p99)


async def producing_beside(stack: AsyncExitStack, url: str, rate: float) -> None:
    """Append this many events a second from another process until the stack is left."""
    if rate:
        producer = await stack.enter_async_context(Producer(url, streams=10, events=1_000_000, rate=rate))
        stack.callback(producer.kill)
        await producer.go()


async def speak(log: StreamLog, turns: int, *, begin: float, every: float, interims: int) -> list[float]:
    """Append ``turns`` events to one stream, one every ``every`` seconds from ``begin``; the appends' milliseconds."""
    loop = asyncio.get_running_loop()
    sequence, took = count(log.last_sequence + 1), []
    for turn in range(turns):
        for revision in range(1, interims + 1):
            await asyncio.sleep(max(begin + (turn + revision / (interims + 1)) * every - loop.time(), 0))
            await log.append([interim(log.id, next(sequence), turn, revision)])
        await asyncio.sleep(max(begin + (turn + 1) * every - loop.time(), 0))
        started = time.perf_counter()
        await log.append([final(log.id, next(sequence), turn)])
        took.append((time.perf_counter() - started) * 1000)
    return took


async def main(url: str, streams: int, events: int, rate: float, interims: int, seed: int) -> None:
    outbox = await Outbox.open(url, name="producer", clock=SystemClock())
    logs = []
    for _ in range(streams):
        stream = new_id("str")  # of its own track: the streams of an earlier run on this log are still open
        new = NewStream(id=stream, room_sid="RM_bench", room="bench", track_sid=stream, participant="p")
        logs.append(await outbox.open_stream(new))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    every = streams * (1 + interims) / rate if rate else 0.0
    now = asyncio.get_running_loop().time()
    # Each starts at its own time, the same in every run: people do not speak in step.
    dice = random.Random(seed)
    lanes = [
        speak(log, events // streams, begin=now + every * dice.random(), every=every, interims=interims) for log in logs
    ]
    took = sorted(value for lane in await asyncio.gather(*lanes) for value in lane)
    quantiles = statistics.quantiles(took, n=100)
    print(f"{quantiles[49]:.2f} {quantiles[98]:.2f}", flush=True)
    await outbox.aclose()


if __name__ == "__main__":
    where, *numbers = sys.argv[1:]
    uvloop.run(main(where, int(numbers[0]), int(numbers[1]), float(numbers[2]), int(numbers[3]), int(numbers[4])))
