"""Producers as separate processes, to be killed, stopped and raced.

Run as ``python -m tests.support.outbox.outbox_process TASK URL …``. A child reports its progress on its standard
output, and waits for a line on its standard input where its task requires it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

import sqlalchemy as sa

from relay.clock import SystemClock
from relay.errors import OutboxError
from relay.outbox.log import stream_log
from relay.outbox.operator import copying
from relay.outbox.outbox import Outbox
from relay.outbox.records import Append
from relay.outbox.sqlite.database import SQLite
from tests.support.builders import durable, new_stream
from tests.support.outbox.outbox_store import HandClock

STREAMS = 4


class Child:
    """One such process. Killed at the end of the block, if it still runs."""

    def __init__(self, task: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", "tests.support.outbox.outbox_process", task, *arguments]
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> "Child":
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def line(self) -> str:
        """Its next line of output; empty once it has ended."""
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")


class Mortal(SQLite):
    """Dies of SIGKILL after the named step of the first transaction that appends sequence ``at``.

    ``crowded``: as if the appends always had to share their transaction with another write.
    """

    def __init__(self, path: str, step: str, at: int, *, crowded: bool) -> None:
        super().__init__(path)
        self._step, self._at, self._crowded = step, at, crowded
        self._reached = False

    def _die_after(self, step: str) -> None:
        if self._reached and step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)

    def append(self, connection: sa.Connection, appends: Sequence[Append], now: int) -> bool:
        if self._crowded and not connection.in_transaction():
            return False
        self._reached = any(append.records[-1].sequence >= self._at for append in appends)
        self._die_after("begin")
        appended = super().append(connection, appends, now)
        self._die_after("append")
        return appended

    @contextmanager
    def turn(self, connection: sa.Connection) -> Iterator[None]:
        with super().turn(connection):
            yield
        self._die_after("commit")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def told() -> None:
    await asyncio.to_thread(sys.stdin.readline)


async def append_for_ever(outbox: Outbox, first: int) -> None:
    """Append to several streams at once, and report each commit as ``number sequence``."""

    async def one(number: int) -> None:
        log = await outbox.open_stream(new_stream(number))
        for sequence in range(1, 1_000_000):
            await log.append([durable(number, sequence)])
            say(f"{number} {sequence}")

    await asyncio.gather(*(one(number) for number in range(first, first + STREAMS)))


async def append(url: str) -> None:
    await append_for_ever(await Outbox.open(url, name="producer", clock=SystemClock()), 1)


async def die(url: str, step: str, at: str, company: str) -> None:
    database = Mortal(url.removeprefix("sqlite:///"), step, int(at), crowded=company == "crowded")
    outbox = Outbox(database, name="producer", clock=SystemClock(), lease_ms=6000, retry_s=10)
    await append_for_ever(outbox, 1)


class Spill(NamedTuple):
    """``outbox.spill`` of config.yaml."""

    path: str
    max: int = 1 << 20


async def spill(url: str, folder: str) -> None:
    """Append to two streams, as fast as possible and without end, whether or not the database is there."""
    stream_log.SPILL_AFTER = 0.05
    outbox = await Outbox.open(url, name="job-1", clock=SystemClock(), spill=Spill(folder))
    logs = [await outbox.open_stream(new_stream(number)) for number in (1, 2)]
    for sequence in range(1, 1_000_000):
        for number, log in enumerate(logs, 1):
            log.append([durable(number, sequence)])
        await asyncio.sleep(0.01)
        say(str(sequence))


async def open_streams(url: str, number: str) -> None:
    """Open a stream, on request, of the track that the number names."""
    say("ready")
    await told()
    outbox = await Outbox.open(url, name=number, clock=SystemClock())
    await outbox.open_stream(new_stream(int(number)))
    say("opened")
    await outbox.aclose()


async def race(url: str, number: str) -> None:
    """Open a stream of the same track, on request."""
    outbox = await Outbox.open(url, name=number, clock=SystemClock())
    say("ready")
    await told()
    try:
        await outbox.open_stream(new_stream(int(number), track="TR"))
    except OutboxError as error:
        say(type(error).__name__)
    else:
        say("opened")
    await told()


async def freeze(url: str) -> None:
    """Append an event, and another one on request."""
    outbox = await Outbox.open(url, name="frozen", clock=SystemClock(), lease_ms=300)
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1)])
    say("ready")
    await told()
    try:
        await log.append([durable(1, 2)])
    except OutboxError as error:
        say(type(error).__name__)
    else:
        say("appended")
    await outbox.aclose()


async def copy(source: str, target: str, last: str, times: str) -> None:
    """Copy a log in small steps, and die of SIGKILL after a statement that begins like this, in its transaction."""
    left = int(times)

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal left
        left -= statement.lstrip().startswith(last)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    copying._STEP_ROWS = 3
    sa.event.listen(sa.Engine, "after_cursor_execute", count)
    copied = await asyncio.to_thread(copying.copy_log, source, target, HandClock(1 << 60), lambda *_: None)
    say(f"resumed {copied.resumed}")


TASKS: dict[str, Callable[..., Awaitable[None]]] = {
    "append": append,
    "die": die,
    "open-streams": open_streams,
    "race": race,
    "freeze": freeze,
    "copy": copy,
    "spill": spill,
}


async def main(task: str, *arguments: str) -> None:
    await TASKS[task](*arguments)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
