"""(b) Latency from append, in other processes, to arrival: 200 appends/s over 100 streams.

Only finals are timed, from their creation to their arrival. Interims are appended, counted in the rate and sent like
any other event, but not timed: a superseded interim is correctly never sent. The disk's sync time for one page,
measured during the run, is reported beside it.

(q) The same with the log in PostgreSQL. The server's time for a commit of one row is reported beside it.
"""

import tempfile
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from bench.disk import committing, spread, syncing
from bench.producer import Producer
from bench.receiver import Receiver
from bench.workload import endpoint
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from tests.support.outbox.postgres import running_server

SECONDS, STREAMS, RATE, PRODUCERS = 30, 100, 200, 2
LOADS = ((1, 0), (1, 3), (5, 3))
"""Endpoints, and interims before each final."""


async def measure(receiver: Receiver) -> None:
    print(f"\n(b) added latency, append → arrival: {RATE}/s over {STREAMS} streams, by {PRODUCERS} other processes")
    for endpoints, interims in LOADS:
        with tempfile.TemporaryDirectory() as folder:
            await _run(receiver, f"sqlite:///{folder}/relay.db", "sqlite", endpoints, interims, syncing(folder))


async def measure_postgres(receiver: Receiver) -> None:
    print(f"\n(q) the same with the log in PostgreSQL: {RATE}/s over {STREAMS} streams, by {PRODUCERS} other processes")
    with running_server(durable=True) as server:
        for endpoints, interims in LOADS:
            url = server.url(server.create())
            await _run(receiver, url, "postgres", endpoints, interims, committing(url))


async def _run(
    receiver: Receiver,
    url: str,
    kind: str,
    endpoints: int,
    interims: int,
    floor: AbstractAsyncContextManager[list[float]],
) -> None:
    finals = SECONDS * RATE // (1 + interims)
    names = [f"latency-{kind}-{endpoints}-{interims}-{index}" for index in range(endpoints)]
    clock = SystemClock()
    outbox = await Outbox.open(url, name="bench", clock=clock)
    targets = [endpoint(name, receiver.url(name), 16) for name in names]
    await outbox.lanes.sync_endpoints(names)
    async with (
        delivering(outbox, targets, clock, grace_s=1) as dispatcher,
        floor as synced,
        AsyncExitStack() as stack,
    ):
        producers = [
            Producer(
                url,
                streams=STREAMS // PRODUCERS,
                events=finals // PRODUCERS,
                rate=RATE / PRODUCERS,
                interims=interims,
                seed=seed,
            )
            for seed in range(PRODUCERS)
        ]
        for producer in producers:
            await stack.enter_async_context(producer)
        for producer in producers:
            await producer.go()
        appends = [await producer.appends() for producer in producers]
        stats = [await receiver.wait_for(name, finals, within=30) for name in names]
    await outbox.aclose()
    worst = max(stats, key=lambda s: s["p99_ms"])
    p50, p99 = max(appends, key=lambda quantiles: quantiles[1])
    print(
        f"    {endpoints} endpoint(s), {interims} of {interims + 1} events interims:"
        f" p50 {worst['p50_ms']:.2f}  p95 {worst['p95_ms']:.2f}  p99 {worst['p99_ms']:.2f} ms;"
        f"  append p50 {p50:.2f}  p99 {p99:.2f} ms;  found by the sweep only: {dispatcher.metrics.rings_lost.value()};"
        f"  the {'disk' if kind == 'sqlite' else 'commit'} alone {spread(synced)}",
        flush=True,
    )
