"""Producer, dispatcher and endpoints in a run, and the deaths of the dispatcher."""

import asyncio
import multiprocessing
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from tests.torture import dispatcher, producer
from tests.torture.dispatcher import POINTS, Death
from tests.torture.receivers import ENDPOINTS, NEVER, Endpoint, until
from tests.torture.reconcile import Account, Unsettled, reconcile, unsettled
from tests.torture.size import Size

LIFETIME_S = (0.2, 1.5)
"""How long the dispatcher lives between two random deaths."""
DIES_WITHIN_S = 30.0
BEHIND = "SELECT endpoint, SUM(last_sequence - cursor) FROM lanes JOIN streams USING (sid) GROUP BY endpoint"
ASIDE = "SELECT endpoint, COUNT(*) FROM parked GROUP BY endpoint"


class Torture:
    """One run. ``accounts`` is what it came to; ``deaths`` how often the dispatcher died, by what."""

    def __init__(self, size: Size, directory: Path) -> None:
        self.size = size
        self.accounts: list[Account] = []
        self.deaths: Counter[str] = Counter()
        self._database = directory / "relay.db"
        self._dice = random.Random(size.seed)
        self._endpoints = [Endpoint(name, size.flap_s, random.Random(f"{size.seed} {name}")) for name in ENDPOINTS]
        self._kills: list[dict[str, Unsettled]] = []
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["__main__", dispatcher.__name__, producer.__name__])

    async def run(self) -> None:
        """Raises ``AssertionError`` where it does not come to its end in time; the accounts are there all the same."""
        deadline = time.monotonic() + self.size.within_s
        async with self._receiving():
            outbox = await Outbox.open(f"sqlite:///{self._database}", name="relay", clock=SystemClock())
            await outbox.lanes.sync_endpoints(list(ENDPOINTS))
            await outbox.aclose()
            away = asyncio.create_task(self._away())
            appending = asyncio.create_task(self._append())
            for death in self._plan():
                await self._live_and_die(death)
            acknowledged = await appending
            await away
            for endpoint in self._endpoints:
                endpoint.calm = True
            last = self._start(None)
            done = await until(self._delivered, within=deadline - time.monotonic())
            last.terminate()
            ended = await self._ended(last)
            self.accounts = reconcile(self._database, self._endpoints, self._kills, acknowledged)
        assert done, f"not everything has arrived within {self.size.within_s:g} s"
        assert ended == 0, f"the last dispatcher ended with {ended}"

    def _plan(self) -> list[Death | None]:
        """None for a death at a random moment."""
        deaths: list[Death | None] = [Death(point, nth) for point in POINTS for nth in range(1, self.size.commits + 1)]
        deaths += [None] * self.size.kills
        self._dice.shuffle(deaths)
        return deaths

    async def _live_and_die(self, death: Death | None) -> None:
        process = self._start(death)
        if death is None:
            await asyncio.sleep(self._dice.uniform(*LIFETIME_S))
            process.kill()
        assert await self._ended(process) == -signal.SIGKILL, "the dispatcher did not die as planned"
        self.deaths["at a random moment" if death is None else death.point] += 1
        assert await until(lambda: not any(one.connected for one in self._endpoints), within=10)
        self._kills.append(unsettled(self._database, self._endpoints))

    def _start(self, death: Death | None) -> ForkServerProcess:
        configs = [endpoint.config for endpoint in self._endpoints]
        arguments = (str(self._database), configs, death)
        process = self._processes.Process(target=dispatcher.main, args=arguments, daemon=True)
        process.start()
        return process

    async def _ended(self, process: ForkServerProcess) -> int | None:
        await asyncio.to_thread(process.join, DIES_WITHIN_S)
        if process.is_alive():
            process.kill()
            await asyncio.to_thread(process.join)
            return None
        return process.exitcode

    async def _append(self) -> dict[str, int]:
        """How many were committed of each stream, as the producer saw it."""
        ours, theirs = self._processes.Pipe(duplex=False)
        arguments = (str(self._database), self.size, theirs)
        process = self._processes.Process(target=producer.main, args=arguments, daemon=True)
        process.start()
        theirs.close()
        with ours:
            committed: dict[str, int] = await asyncio.to_thread(ours.recv)
        assert await self._ended(process) == 0
        return committed

    async def _away(self) -> None:
        """One endpoint goes, and comes back."""
        (gone,) = (endpoint for endpoint in self._endpoints if endpoint.name == "gone")
        await asyncio.sleep(self.size.seconds / 10)
        await gone.leave()
        await asyncio.sleep(self.size.gone_s)
        await gone.open()

    def _delivered(self) -> bool:
        with closing(sqlite3.connect(self._database)) as log:
            left = Counter(dict(log.execute(BEHIND).fetchall())) + Counter(dict(log.execute(ASIDE).fetchall()))
        return all(name == NEVER for name, count in left.items() if count)

    @asynccontextmanager
    async def _receiving(self) -> AsyncIterator[None]:
        for endpoint in self._endpoints:
            await endpoint.open()
        try:
            yield
        finally:
            for endpoint in self._endpoints:
                await endpoint.aclose()
