"""(g) Ten minutes at 300 events a second: the delivering process's memory per minute, and the log's size."""

import asyncio
import tempfile
from pathlib import Path

import psutil

from bench.producer import Producer
from bench.receiver import Receiver
from bench.workload import endpoint
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.outbox.outbox import Outbox

MINUTES, STREAMS, RATE = 10, 100, 300
KEEP_MS = 60_000
"""The log keeps settled events for a minute, so that the measurement includes pruning."""


async def measure(receiver: Receiver) -> None:
    print(f"\n(g) soak: {RATE} events/s over {STREAMS} streams for {MINUTES} minutes, retention of a minute")
    clock, events = SystemClock(), MINUTES * 60 * RATE
    me = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/relay.db"
        outbox = await Outbox.open(url, name="bench", clock=clock)
        await outbox.lanes.sync_endpoints(["soak"])
        pruning = asyncio.create_task(outbox.retention(KEEP_MS).run())
        async with (
            delivering(outbox, [endpoint("soak", receiver.url("soak"), 16)], clock, grace_s=1) as dispatcher,
            Producer(url, streams=STREAMS, events=events, rate=RATE) as producer,
        ):
            await producer.go()
            for minute in range(1, MINUTES + 1):
                await asyncio.sleep(60)
                stats = await asyncio.to_thread(receiver.stats, "soak")
                log_mib = sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20
                print(
                    f"    minute {minute:>2}: {me.memory_info().rss / 2**20:6.1f} MiB resident, log {log_mib:6.1f} MiB,"
                    f" p50 {stats['p50_ms']:.2f}  p99 {stats['p99_ms']:.2f} ms, {stats['events']} arrived",
                    flush=True,
                )
            await receiver.wait_for("soak", events, within=60)
        print(f"    all arrived; found by the sweep only: {dispatcher.metrics.rings_lost.value()}")
        pruning.cancel()
        await outbox.aclose()
