"""(p) Deliveries per second from a log in PostgreSQL, by one, two and four dispatchers, beside SQLite.

Every dispatcher is a process of its own; those of one round share one endpoint and its lanes. A round of each kind
follows the other, and each kind's figure is the median of its rounds: a machine's speed drifts. The rate is that of the
receiver, from the first arrival to the last. CPU time of a delivery is that of all dispatchers, of the server, and of
the receiver.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

from bench.cpu import cpu_of, server_cpu
from bench.dispatcher import DispatcherProcess
from bench.receiver import Receiver
from bench.workload import Load
from relay.clock import SystemClock
from relay.ids import new_id
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream
from tests.support.outbox.postgres import PostgresServer, running_server

LOAD = Load(100, 32, 24_000)
KINDS = {"SQLite": 1, "PostgreSQL, one": 1, "PostgreSQL, two": 2, "PostgreSQL, four": 4}


async def measure(
    receiver: Receiver, *, rounds: int = 3, load: Load = LOAD, kinds: tuple[str, ...] = tuple(KINDS)
) -> None:
    print(f"\n(p) deliveries a second by dispatchers, each a process: {load}; medians of", rounds)
    seen: dict[str, list[Round]] = {kind: [] for kind in kinds}
    with running_server(durable=True) as server:
        for turn in range(rounds):
            for kind in kinds:
                name = f"fleet-{kind.lower().replace(', ', '-')}-{turn}"
                with _log(server, kind) as url:
                    seen[kind].append(await _run(receiver, server, url, name, KINDS[kind], load))
    medians = {kind: statistics.median(one.rate for one in those) for kind, those in seen.items()}
    for kind, rate in medians.items():
        cpu = [statistics.median(each) for each in zip(*(one.cpu_ms for one in seen[kind]), strict=True)]
        print(
            f"    {kind:16}: {rate:6.0f}/s ({', '.join(f'{one.rate:.0f}' for one in seen[kind])}),"
            + "".join(f" {rate / other:.2f} of {of};" for of, other in list(medians.items())[:2])
            + f" CPU {' + '.join(f'{one:.3f}' for one in cpu)} = {sum(cpu):.3f} ms",
            flush=True,
        )


@dataclass(frozen=True, slots=True)
class Round:
    rate: float
    cpu_ms: tuple[float, float, float]
    """Of a delivery: dispatchers, server, receiver."""


@contextmanager
def _log(server: PostgresServer, kind: str) -> Iterator[str]:
    """The URL of an empty log."""
    if kind == "SQLite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/relay.db"
        return
    database = server.create()
    try:
        yield server.url(database)
    finally:
        server.drop(database)


async def _run(receiver: Receiver, server: PostgresServer, url: str, name: str, dispatchers: int, load: Load) -> Round:
    outbox = await Outbox.open(url, name="filling", clock=SystemClock())
    await outbox.lanes.sync_endpoints([name])
    for _ in range(load.lanes):
        stream = new_id("str")
        new = NewStream(id=stream, room_sid="RM_bench", room="bench", track_sid=stream, participant="p")
        await (await outbox.open_stream(new)).append(list(load.finals(stream)))
    await outbox.aclose()
    names = [f"dispatcher-{number}" for number in range(dispatchers)]
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(
                DispatcherProcess(
                    url,
                    name=each,
                    endpoint=name,
                    target=receiver.url(name),
                    concurrency=load.concurrency,
                    of=names,
                )
            )
            for each in names
        ]
        before = _cpu(processes, server, receiver)
        await asyncio.gather(*(process.go() for process in processes))
        stats = await receiver.wait_for(name, load.events // load.lanes * load.lanes, within=90)
        used = [after - one for after, one in zip(_cpu(processes, server, receiver), before, strict=True)]
    assert stats["disorder"] == 0, stats
    sending, storing, receiving = (one * 1000 / stats["events"] for one in used)
    return Round(stats["events"] / stats["seconds"], (sending, storing, receiving))


def _cpu(
    processes: Sequence[DispatcherProcess], server: PostgresServer, receiver: Receiver
) -> tuple[float, float, float]:
    return sum(cpu_of(process.pid) for process in processes), server_cpu(server), cpu_of(receiver.pid)
