"""(j) A healthy endpoint's p50 and p99 beside four receivers that flood the relay.

Two send interim answers without end, so their attempts fail; two acknowledge, and then send a chunk extension, or
trailers, without end. The configuration is the default one, breaker included. For comparison, the same endpoint runs
beside four healthy ones, which receive as many events, and alone. The kinds of round alternate.
"""

import logging
import statistics
import tempfile
from typing import Literal, get_args

from bench.producer import Producer
from bench.receiver import Receiver
from bench.workload import endpoint
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.outbox.outbox import Outbox

Beside = Literal["nothing", "healthy", "floods"]
FLOODS = ("continue", "hints", "extension", "trailers")
SECONDS, STREAMS, RATE = 10, 20, 40


async def measure(receiver: Receiver, *, rounds: int = 3) -> None:
    print(f"\n(j) floods: a healthy endpoint, {RATE} events/s, beside {len(FLOODS)} others that get the same")
    logging.getLogger("relay.dispatch").setLevel(logging.ERROR)  # each failed attempt is logged
    seen: dict[Beside, list[tuple[float, float]]] = {kind: [] for kind in get_args(Beside)}
    for turn in range(rounds):
        for kind, figures in seen.items():
            figures.append(await _run(receiver, f"floods-{turn}-{kind}", kind))
    p50, p99 = ({kind: statistics.median(each[n] for each in seen[kind]) for kind in seen} for n in (0, 1))
    for kind in seen:
        print(f"    beside {kind}: p50 {p50[kind]:.1f} ms, p99 {p99[kind]:.1f} ms")
    for kind in ("healthy", "nothing"):
        print(f"    p99 beside floods / beside {kind}: {p99['floods'] / p99[kind]:.2f}")


def _others(receiver: Receiver, name: str, beside: Beside) -> list[Endpoint]:
    match beside:
        case "nothing":
            return []
        case "healthy":
            return [endpoint(f"other-{kind}", receiver.url(f"{name}-others/{kind}"), 16) for kind in FLOODS]
        case "floods":
            return [endpoint(f"flood-{kind}", receiver.url(f"flood/{kind}"), 16) for kind in FLOODS]


async def _run(receiver: Receiver, name: str, beside: Beside) -> tuple[float, float]:
    """p50 and p99 of the healthy endpoint, in milliseconds."""
    clock, events = SystemClock(), SECONDS * RATE
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/relay.db"
        outbox = await Outbox.open(url, name="bench", clock=clock)
        targets = [*_others(receiver, name, beside), endpoint("healthy", receiver.url(f"{name}/healthy"), 16)]
        await outbox.lanes.sync_endpoints([target.name for target in targets])
        async with (
            delivering(outbox, targets, clock, grace_s=0),
            Producer(url, streams=STREAMS, events=events, rate=RATE) as producer,
        ):
            await producer.go()
            stats = await receiver.wait_for(name, events, within=SECONDS + 60)
        await outbox.aclose()
    return float(stats["p50_ms"]), float(stats["p99_ms"])
