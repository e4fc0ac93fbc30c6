"""A process that delivers a log: ``python -m bench.dispatcher URL NAME ENDPOINT TARGET CONCURRENCY DISPATCHERS``.

DISPATCHERS are the names, with commas, of all that share the work. A fleet's learn of one another through the log, and
each takes its share; without that the first of them would hold every lane.

Prints ``ready`` when its imports and the log are, starts at the first line on its standard input, and stops at the
second.
"""

import asyncio
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType

import uvloop

from bench.child import Child
from bench.workload import endpoint
from relay.app.delivery import collect_rarely, delivering
from relay.clock import SystemClock
from relay.outbox.outbox import Outbox


class DispatcherProcess(Child):
    """That process, controlled from the bench: ``go`` starts it, and leaving it stops it."""

    def __init__(
        self, url: str, *, name: str, endpoint: str, target: str, concurrency: int, of: Sequence[str] = ()
    ) -> None:
        """``of``: the names of all dispatchers, if this is one of several."""
        super().__init__("bench.dispatcher", url, name, endpoint, target, concurrency, ",".join(of or (name,)))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.go()
        await super().__aexit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The dispatchers of one round, none of which comes or goes."""

    process: str
    names: Sequence[str]

    def dispatchers(self) -> Sequence[str]:
        return self.names

    def ended(self) -> Collection[str]:
        return ()


async def main(url: str, name: str, to: str, target: str, concurrency: int, names: Sequence[str]) -> None:
    collect_rarely()
    clock = SystemClock()
    outbox = await Outbox.open(url, name=name, clock=clock)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    fleet = _Fleet(name, names)
    async with delivering(outbox, [endpoint(to, target, concurrency)], clock, grace_s=1, fleet=fleet):
        await asyncio.to_thread(sys.stdin.readline)
    await outbox.aclose()


if __name__ == "__main__":
    where, called, which, there, most, every = sys.argv[1:]
    uvloop.run(main(where, called, which, there, int(most), every.split(",")))
