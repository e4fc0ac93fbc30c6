"""(a) Events per second through the durable outbox, against bare transports posting the same bodies.

Each round runs the bare transports before and after, and compares with their means: a machine's speed drifts. LiveKit's
own webhook notifier, which keeps its queue in memory, is given as many events of the same size in the same round.
"""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from bench.bare import bare, own, reference
from bench.producer import producing_beside
from bench.receiver import Receiver, built
from bench.workload import Load, endpoint
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.ids import new_id
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream

EVENTS = 24_000
LOADS = (
    Load(32, 32, EVENTS),
    Load(100, 32, EVENTS),
    Load(100, 100, EVENTS),
    Load(32, 32, EVENTS, producing=300),
    Load(100, 100, EVENTS, producing=300),
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Events per second of one round."""

    durable: float
    own: float
    """With the relay's own transport alone."""
    reference: float

    @property
    def beside_own(self) -> float:
        return self.durable / self.own

    @property
    def beside_reference(self) -> float:
        return self.durable / self.reference


async def durable(receiver: Receiver, url: str, name: str, load: Load) -> float:
    """Events per second that the dispatcher drains from a log on disk; each settle commits before the next POST.

    Concurrent appends by another process are delivered, and counted, too.
    """
    clock = SystemClock()
    outbox = await Outbox.open(url, name="bench", clock=clock)
    await outbox.lanes.sync_endpoints([name])
    for _ in range(load.lanes):
        stream = new_id("str")
        log = await outbox.open_stream(
            NewStream(id=stream, room_sid="RM_bench", room="bench", track_sid=stream, participant="p")
        )
        await log.append(list(load.finals(stream)))
    async with AsyncExitStack() as stack:
        await producing_beside(stack, url, load.producing)
        began = time.perf_counter()
        target = endpoint(name, receiver.url(name), load.concurrency)
        dispatcher = await stack.enter_async_context(delivering(outbox, [target], clock, grace_s=1))
        while dispatcher.metrics.deliveries.value(result="delivered") < load.events:
            await asyncio.sleep(0.01)
        rate = dispatcher.metrics.deliveries.value(result="delivered") / (time.perf_counter() - began)
    await outbox.aclose()
    stats = await receiver.wait_for(name, load.events, within=10)
    assert stats["disorder"] == 0, stats
    return rate


async def notifier(receiver: Receiver, program: Path, name: str, load: Load) -> float:
    """Events per second of LiveKit's own notifier."""
    options = [f"-url={receiver.url(name)}", f"-events={load.events}", f"-rooms={load.lanes}"]
    process = await asyncio.create_subprocess_exec(program, *options, stdout=asyncio.subprocess.PIPE)
    seconds, _ = await process.communicate()
    assert process.returncode == 0
    return load.events / float(seconds)


async def compare(receiver: Receiver, url: str, name: str, load: Load) -> Rates:
    """One round: the durable rate, and the means of the bare ones before and after it."""
    before = await bare(reference, receiver, load), await bare(own, receiver, load)
    rate = await durable(receiver, url, name, load)
    after = await bare(reference, receiver, load), await bare(own, receiver, load)
    return Rates(rate, reference=(before[0] + after[0]) / 2, own=(before[1] + after[1]) / 2)


async def measure(receiver: Receiver, *, rounds: int = 3) -> None:
    print("\n(a) throughput: durable outbox / bare transport (the reference; the relay's own), medians of", rounds)
    with tempfile.TemporaryDirectory() as folder:
        await _loads(receiver, built("notifier", Path(folder)), rounds)


async def _loads(receiver: Receiver, program: Path, rounds: int) -> None:
    for load in LOADS:
        seen, notified = [], []
        for turn in range(rounds):
            name = f"durable-{load.lanes}-{load.concurrency}-{load.producing:g}-{turn}"
            with tempfile.TemporaryDirectory() as folder:
                seen.append(await compare(receiver, f"sqlite:///{folder}/relay.db", name, load))
            notified.append(await notifier(receiver, program, f"{name}-notifier", load))
        one = sorted(seen, key=attrgetter("beside_own"))[rounds // 2]
        in_memory = sorted(notified)[rounds // 2]
        print(
            f"    {load}: {one.durable:6.0f}/s durable; {one.reference:6.0f}/s reference, ratio"
            f" {one.beside_reference:.2f}; {one.own:6.0f}/s own, ratio {one.beside_own:.2f};"
            f" {in_memory:6.0f}/s LiveKit's notifier, ratio {one.durable / in_memory:.2f}"
        )
