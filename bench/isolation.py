"""(e) The p99 of fifty healthy endpoints, with and without one that hangs for 15 s per request.

The two kinds of round alternate, and each kind's figure is the median of its rounds: a machine's speed drifts.
"""

import statistics
import tempfile

from bench.producer import Producer
from bench.receiver import Receiver
from bench.workload import endpoint
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.outbox.outbox import Outbox

HEALTHY, SECONDS, STREAMS, RATE = 50, 20, 20, 8


async def measure(receiver: Receiver, *, rounds: int = 3) -> None:
    print(f"\n(e) isolation: {HEALTHY} healthy endpoints, {RATE} events/s to each, beside one that hangs")
    p99: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds):
        for hanging in (False, True):
            p99[hanging].append(await _run(receiver, f"isolation-{turn}-{hanging}", hanging))
    alone, beside = (statistics.median(p99[kind]) for kind in (False, True))
    print(f"    healthy p99 {alone:.1f} ms without it, {beside:.1f} ms with it, ratio {beside / alone:.2f}")


async def _run(receiver: Receiver, name: str, hanging: bool) -> float:
    clock, events = SystemClock(), SECONDS * RATE
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/relay.db"
        outbox = await Outbox.open(url, name="bench", clock=clock)
        targets = [endpoint(f"healthy-{n}", receiver.url(f"{name}/{n}"), 16) for n in range(HEALTHY)]
        if hanging:
            targets.insert(0, endpoint("hanging", receiver.url("hang"), 16))
        await outbox.lanes.sync_endpoints([target.name for target in targets])
        async with (
            delivering(outbox, targets, clock, grace_s=0) as dispatcher,
            Producer(url, streams=STREAMS, events=events, rate=RATE) as producer,
        ):
            await producer.go()
            stats = await receiver.wait_for(name, events * HEALTHY, within=SECONDS + 30)
        assert dispatcher.metrics.rings_lost.value() == 0, "a ring was lost"
        await outbox.aclose()
    return float(stats["p99_ms"])
