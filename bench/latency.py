"""(b) From append, in another process, to arrival: 200 appends a second over 100 streams, interims among them.

Timed are the finals, from their creation to their arrival. Interims are appended, counted in the rate and sent like
any other event, but not timed: an interim that was superseded is rightly never sent.
"""

import subprocess
import sys
import tempfile

from bench.receiver import Receiver
from bench.throughput import endpoint
from relay.clock import SystemClock
from relay.delivery import delivering
from relay.outbox.outbox import Outbox

SECONDS, STREAMS, RATE = 30, 100, 200


async def measure(receiver: Receiver) -> None:
    print(f"\n(b) added latency, append → arrival: {RATE}/s over {STREAMS} streams, appended by another process")
    for endpoints, interims in ((1, 0), (1, 3), (5, 3)):
        await _run(receiver, endpoints, interims)


async def _run(receiver: Receiver, endpoints: int, interims: int) -> None:
    finals = SECONDS * RATE // (1 + interims)
    names = [f"latency-{endpoints}-{interims}-{index}" for index in range(endpoints)]
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/relay.db"
        outbox = await Outbox.open(url, name="bench", clock=clock)
        targets = [endpoint(name, receiver.url(name), 16) for name in names]
        await outbox.lanes.sync_endpoints(names)
        async with delivering(outbox, targets, clock, grace_s=1) as dispatcher:
            producer = subprocess.Popen(
                [sys.executable, "-m", "bench.producer", url, str(STREAMS), str(finals), str(RATE), str(interims)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert producer.stdout is not None
            assert producer.stdin is not None
            await _line(producer)
            producer.stdin.write("\n")
            producer.stdin.flush()
            appends = await _line(producer)
            stats = [await receiver.wait_for(name, finals, within=30) for name in names]
            producer.wait(timeout=10)
        await outbox.aclose()
    worst = max(stats, key=lambda s: s["p99_ms"])
    append_p50, append_p99 = appends.split()
    print(
        f"    {endpoints} endpoint(s), {interims} of {interims + 1} events interims:"
        f" p50 {worst['p50_ms']:.2f}  p95 {worst['p95_ms']:.2f}  p99 {worst['p99_ms']:.2f} ms;"
        f"  append p50 {append_p50}  p99 {append_p99} ms;  found by the sweep only: {dispatcher.stats.found_by_sweep}"
    )


async def _line(process: "subprocess.Popen[str]") -> str:
    import asyncio

    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()
