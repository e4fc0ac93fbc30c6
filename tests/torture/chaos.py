"""Dispatchers and producers that are killed and stopped, over a PostgreSQL that crashes.

``python -m tests.torture.chaos`` runs it in full, prints the reconciliation, and ends with 1 if there is a fault in it.
"""

import asyncio
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from tests.support.outbox.postgres import running_server
from tests.torture import fleet
from tests.torture.disruptions import TARGETS, Disruption, Target, explained, noted, took_over_s
from tests.torture.harness import ASIDE, BEHIND
from tests.torture.proxy import Proxy
from tests.torture.receivers import until
from tests.torture.reconcile import Account, reconcile_log, table

ENDS_WITHIN_S = 60.0
TELLS_EVERY_S = 10.0
_CUT_OFF = "d1"
"""The dispatcher that reaches PostgreSQL through the proxy. It is never killed."""
_READY = "SELECT COUNT(*) FROM processes WHERE ready_at IS NOT NULL"
Disrupt = Callable[[], Coroutine[Any, Any, None]]
_OPEN = "SELECT COUNT(*) FROM streams WHERE closed_at IS NULL AND about IS NULL"


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    dispatchers: int = 3
    producers: int = 2
    streams: int = 12
    """Of each producer at a time."""
    per_second: float = 30
    """Events of each producer."""
    kills: int = 4
    freezes: int = 3
    restarts: int = 1
    """Of dispatchers, in order."""
    producer_kills: int = 1
    producer_freezes: int = 1
    crashes: int = 1
    """Of PostgreSQL."""
    latencies: int = 0
    """Times that the first dispatcher reaches PostgreSQL slowly, as on a bad network."""
    silences: int = 0
    """Times that its connections are half-open."""
    partitions: int = 0
    """Times that they are broken off, and new ones refused."""
    cut_s: float = 9.0
    gap_s: tuple[float, float] = (0.3, 1.2)
    frozen_s: tuple[float, float] = (1.0, 9.0)
    """Some longer, some shorter than the leases."""
    within_s: float = 120
    """After the last disruption, until everything has arrived."""
    seed: int = 5
    tells: bool = False
    """Whether it says how far it is, on standard error."""


SMALL = Plan()
NETWORK = Plan(
    dispatchers=2, kills=0, freezes=0, restarts=0, producer_kills=0, producer_freezes=0, crashes=0,
    latencies=1, silences=1, partitions=1,
)  # fmt: skip
FULL = Plan(
    per_second=20, kills=40, freezes=25, restarts=8, producer_kills=8, producer_freezes=6, crashes=3,
    latencies=3, silences=3, partitions=3, gap_s=(0.3, 1.5), tells=True,
)  # fmt: skip


class Chaos:
    """One run. ``accounts`` is what it came to."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan, self._directory = plan, directory
        self.accounts: list[Account] = []
        self.disruptions: list[Disruption] = []
        self.restarts: list[Disruption] = []
        """In order: they account for no duplicate."""
        self.acknowledged: dict[str, int] = {}
        self.took_s = 0.0
        """From the last disruption until everything had arrived."""
        self._dice = random.Random(plan.seed)
        self.targets = [Target(name, 1.0, random.Random(f"{plan.seed} {name}")) for name in TARGETS]
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["__main__", fleet.__name__])
        self._dispatchers: dict[str, ForkServerProcess] = {}
        self._producers: list[ForkServerProcess] = []
        self._hearing: list[asyncio.Task[None]] = []
        self._where = str(directory / "where")
        """The file in which a process that does not end writes where it is."""
        self._started = self._produced = self._done = 0
        self._began = time.monotonic()

    async def run(self) -> None:
        """Raises ``AssertionError`` where it does not come to its end in time; the accounts are there all the same."""
        plan = self.plan
        with running_server() as server:
            self._server, self._database = server, server.create()
            self._url = server.url(self._database)
            self._proxy, folder = Proxy(server.folder), self._directory / "proxy"
            folder.mkdir()
            self._url_by_proxy = self._url.replace(str(server.folder), str(folder))
            async with self._receiving(), self._proxy.listening(folder):
                outbox = await Outbox.open(self._url, name="first", clock=SystemClock())
                await outbox.lanes.sync_endpoints(list(TARGETS))
                await outbox.aclose()
                try:
                    done, codes = await self._run()
                finally:
                    for process in (*self._dispatchers.values(), *self._producers):
                        if process.is_alive():
                            process.kill()
                self.accounts = reconcile_log(
                    self._ask, self.targets, explained(self.targets, self.disruptions), self.acknowledged
                )
        assert done, f"not everything has arrived within {plan.within_s:g} s"
        assert codes <= {0, -signal.SIGTERM}, f"the last dispatchers ended with {codes}"

    async def _run(self) -> tuple[bool, set[int | None]]:
        plan = self.plan
        for _ in range(plan.dispatchers):
            self._start_dispatcher()
        for _ in range(plan.producers):
            self._start_producer()
        of_dispatchers: list[Disrupt] = (
            [self._kill] * plan.kills + [self._freeze] * plan.freezes + [self._restart] * plan.restarts
        )
        of_producers: list[Disrupt] = [self._kill_producer] * plan.producer_kills + [
            self._freeze_producer
        ] * plan.producer_freezes
        of_the_database: list[Disrupt] = [
            *[self._crash] * plan.crashes,
            *[partial(self._cut, "latency", partial(self._proxy.slow, 0.05))] * plan.latencies,
            *[partial(self._cut, "silence", self._proxy.silence)] * plan.silences,
            *[partial(self._cut, "partition", self._proxy.partition)] * plan.partitions,
        ]
        assert await until(self._ready, within=ENDS_WITHIN_S), "the dispatchers do not start"
        every = [of_dispatchers, of_producers, of_the_database]
        most = max(map(len, every))
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell_progress(sum(map(len, every))))
            disrupting = [group.create_task(self._disrupt(each, most / len(each))) for each in every if each]
            await asyncio.wait(disrupting)
            telling.cancel()
        self._tell("every disruption is over")
        await asyncio.sleep(1)
        for process in self._producers:
            if process.is_alive():
                os.kill(_pid(process), signal.SIGTERM)
        for target in self.targets:
            target.calm = True
        began = time.monotonic()
        done = await until(self._delivered, within=plan.within_s)
        self.took_s = time.monotonic() - began
        self._tell(f"everything has arrived {self.took_s:.0f} s later" if done else "not everything has arrived")
        for process in self._dispatchers.values():
            process.terminate()
        codes = {await self._ended(process) for process in self._dispatchers.values()}
        await asyncio.wait_for(asyncio.gather(*self._hearing), ENDS_WITHIN_S)
        return done, codes

    async def _disrupt(self, all_of_it: Sequence[Disrupt], rarer: float) -> None:
        """Do this in some order, so many times rarer than what is done most often."""
        for disrupt in self._dice.sample(all_of_it, len(all_of_it)):
            await asyncio.sleep(self._dice.uniform(*self.plan.gap_s) * rarer)
            await disrupt()
            self._done += 1

    async def _tell_progress(self, of: int) -> None:
        while True:
            taken = sum(len(target.taken) for target in self.targets)
            self._tell(f"{self._done} of {of} disruptions, {taken} events have arrived")
            await asyncio.sleep(TELLS_EVERY_S)

    def _tell(self, what: str) -> None:
        if self.plan.tells:
            sys.stderr.write(f"{time.monotonic() - self._began:4.0f} s: {what}\n")

    def _start_dispatcher(self) -> None:
        self._started += 1
        name = f"d{self._started}"
        url = self._url_by_proxy if name == _CUT_OFF else self._url
        configs = [target.config for target in self.targets]
        arguments = (url, name, configs, str(self._directory / "messages"), self._where)
        process = self._processes.Process(target=fleet.dispatch, args=arguments, daemon=True)
        process.start()
        self._dispatchers[name] = process

    def _start_producer(self) -> None:
        self._produced += 1
        ours, theirs = self._processes.Pipe(duplex=False)
        first = self._produced * 100_000
        arguments = (self._url, first, self.plan.streams, self.plan.per_second, theirs, self._where)
        process = self._processes.Process(target=fleet.produce, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self._producers.append(process)
        self._hearing.append(asyncio.create_task(asyncio.to_thread(self._hear, ours)))

    def _hear(self, ours: Connection) -> None:
        with ours, suppress(EOFError, OSError):  # a producer that is killed says half of something at most
            while True:
                stream, last = ours.recv()
                self.acknowledged[stream] = last

    def _a_dispatcher(self) -> tuple[str, ForkServerProcess]:
        return self._dice.choice([one for one in self._dispatchers.items() if one[0] != _CUT_OFF])

    async def _kill(self) -> None:
        name, process = self._a_dispatcher()
        with noted(self.disruptions, "kill", name):
            process.kill()
            await self._ended(process)
        del self._dispatchers[name]
        self._start_dispatcher()

    async def _restart(self) -> None:
        name, process = self._a_dispatcher()
        with noted(self.restarts, "restart", name):
            self._start_dispatcher()
            process.terminate()
            code = await self._ended(process)
        assert code in (0, -signal.SIGTERM), f"a dispatcher ends with {code}"  # by the signal: it had not begun yet
        del self._dispatchers[name]

    async def _freeze(self) -> None:
        name, process = self._a_dispatcher()
        with noted(self.disruptions, "freeze", name):
            await self._stop_for(process, self._dice.uniform(*self.plan.frozen_s))

    async def _kill_producer(self) -> None:
        process = self._dice.choice([one for one in self._producers if one.is_alive()])
        process.kill()
        await self._ended(process)
        self._start_producer()

    async def _freeze_producer(self) -> None:
        process = self._dice.choice([one for one in self._producers if one.is_alive()])
        await self._stop_for(process, self._dice.uniform(2, 9))

    async def _crash(self) -> None:
        with noted(self.disruptions, "crash of PostgreSQL", None):
            await asyncio.to_thread(self._server.stop, "immediate")
            await asyncio.sleep(self._dice.uniform(0.2, 2))
            await asyncio.to_thread(self._server.start)

    async def _cut(self, what: str, cut: Callable[[], None]) -> None:
        """The connections of one dispatcher."""
        with noted(self.disruptions, what, _CUT_OFF):
            cut()
            await asyncio.sleep(self.plan.cut_s)
            self._proxy.heal()

    async def _stop_for(self, process: ForkServerProcess, seconds: float) -> None:
        os.kill(_pid(process), signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(_pid(process), signal.SIGCONT)

    async def _ended(self, process: ForkServerProcess) -> int | None:
        await asyncio.to_thread(process.join, ENDS_WITHIN_S)
        if process.is_alive():
            for ask in (fleet.SHOW_THREADS, fleet.SHOW_TASKS):
                os.kill(_pid(process), ask)
            await asyncio.sleep(1)
            self._tell(f"process {process.pid} does not end:\n{Path(self._where).read_text()}")
        return process.exitcode

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        return self._server.execute(query, database=self._database)

    async def _ready(self) -> bool:
        return await asyncio.to_thread(self._ask, _READY) == [(self.plan.dispatchers,)]

    async def _delivered(self) -> bool:
        return await asyncio.to_thread(self._all_delivered)

    def _all_delivered(self) -> bool:
        left = [*self._ask(BEHIND), *self._ask(ASIDE)]
        return not any(count for _, count in left) and self._ask(_OPEN) == [(0,)]

    @asynccontextmanager
    async def _receiving(self) -> AsyncIterator[None]:
        for target in self.targets:
            await target.open()
        try:
            yield
        finally:
            for target in self.targets:
                await target.aclose()


def _pid(process: ForkServerProcess) -> int:
    assert process.pid is not None
    return process.pid


def report(chaos: Chaos) -> str:
    """What was done, and what came of it, for people."""
    done = Counter(one.what for one in chaos.disruptions)
    most = {one.what: 0 for one in chaos.disruptions}
    for one in chaos.disruptions:
        most[one.what] = max(most[one.what], one.explains.total())
    lines = [f"{count} times {what}: at most {most[what]} duplicates of one" for what, count in sorted(done.items())]
    lines += [
        f"its lanes were taken over within {took_over_s(chaos.targets, cut):.1f} s of the {cut.what}"
        for cut in chaos.disruptions
        if cut.what in ("silence", "partition")
    ]
    lines += [f"{target.name}: at most {target.most_in_flight} requests in flight" for target in chaos.targets]
    lines += [table(chaos.accounts), f"everything had arrived {chaos.took_s:.0f} s after the last disruption"]
    return "\n".join(lines)


def _takings(chaos: Chaos, fault: str, began: float) -> list[str]:
    """Which dispatcher sent the lane's events about then, and what was done meanwhile; seconds since the beginning."""
    name, text = fault.split(": ", 1)
    (event,) = re.findall(r"evt_\w+", text)[:1] or [""]
    target = next(target for target in chaos.targets if target.name == name)
    times = [at for at, _ in target.taken_from.get(event, [])]
    if not times:
        return []
    first, last = min(times) - 3, max(times) + 1
    lane = event.rpartition("_")[0]
    requests = [
        (at, sender, one.rpartition("_")[2], what)
        for what, of in (("taken", target.taken_from), ("refused", target.refused_from))
        for one, each in of.items()
        for at, sender in each
        if one.startswith(f"{lane}_") and first <= at <= last
    ]
    lines = [f"{name} {event}:"]
    lines += [f"  {at - began:8.3f} {sender} sent {one}: {what}" for at, sender, one, what in sorted(requests)]
    lines += [
        f"  {one.what} of {one.sender} from {one.began - began:.3f} to {one.ended - began:.3f}"
        for one in [*chaos.disruptions, *chaos.restarts]
        if one.began <= last and one.ended >= first - 10
    ]
    return lines


def main(size: str = "full") -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        chaos = Chaos({"full": FULL, "small": SMALL, "network": NETWORK}[size], Path(directory))
        failed = ""
        try:
            asyncio.run(chaos.run())
        except AssertionError as error:
            failed = str(error)
    faults = [f"{account.endpoint}: {fault}" for account in chaos.accounts for fault in account.faults]
    lines = [report(chaos), f"{len(faults)} faults, {time.monotonic() - began:.0f} s", failed, *faults[:50]]
    lines += [line for fault in faults[:10] for line in _takings(chaos, fault, began)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if failed or faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
