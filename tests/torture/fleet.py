"""The processes of the chaos: the real ``speech-relay dispatch``, and producers, which others kill and stop."""

import asyncio
import faulthandler
import logging
import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

from relay.app.service import run_service
from relay.clock import SystemClock
from relay.config.models import Config
from relay.dispatch import state
from relay.errors import OutboxError
from relay.outbox.outbox import Outbox
from relay.outbox.postgres import database
from tests.support.builders import durable, ended, new_stream

LEASE_MS = 6_000
"""In place of 45 seconds, so that lanes of a stopped process are taken over within the run."""
_IN_TRANSACTION = "'1s'"
"""In place of 4 seconds, for which a process that is stopped in mid-transaction keeps the others waiting: a shorter
lease must outlast that, too."""
EVENTS_OF_A_STREAM = (5, 60)


@dataclass(frozen=True)
class Unchanged:
    """A configuration that has no files."""

    config: Config
    files: Sequence[Path] = ()

    def load(self) -> Config:
        return self.config


SHOW_THREADS, SHOW_TASKS = signal.SIGUSR1, signal.SIGUSR2
"""Make a process write where its threads and its tasks are."""


def show_where(path: str) -> None:
    """At ``SHOW_THREADS`` and ``SHOW_TASKS``, write that to this file. Called on the event loop.

    Where threads are is written even while the loop hangs.
    """
    file = Path(path).open("a")  # noqa: SIM115 - for the rest of the process
    faulthandler.register(SHOW_THREADS, file, all_threads=True)
    asyncio.get_running_loop().add_signal_handler(SHOW_TASKS, _show_tasks, file)


def _show_tasks(file: TextIO) -> None:
    """With everything that each awaits, which ``Task.print_stack`` leaves out."""
    for task in asyncio.all_tasks():
        file.write(f"\n{task.get_name()}, asked {task.cancelling()} times to end\n")
        awaited: Any = task.get_coro()
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            file.write(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}\n")
            awaited = awaited.cr_await
        file.write(f"  {awaited!r}\n")
    file.flush()


def _shorten() -> None:
    """The times of this process, which is a test's own, to those of a run."""
    setattr(state, "lease_ms_for", lambda _: LEASE_MS)  # noqa: B010 - no other way to set it
    settings: str = getattr(database, "_SETTINGS")  # noqa: B009 - as above
    assert settings.count("'4s'") == 1
    setattr(database, "_SETTINGS", settings.replace("'4s'", _IN_TRANSACTION))  # noqa: B010 - as above


def dispatch(url: str, name: str, endpoints: list[Mapping[str, Any]], messages: str, where: str) -> None:
    """Deliver until SIGTERM. Every request says from which dispatcher it is. ``where``: see ``show_where``."""
    logging.basicConfig(filename=messages, level=logging.INFO, format=f"%(asctime)s {name} %(message)s")
    _shorten()
    endpoints = [{**one, "headers": {"x-dispatcher": name}} for one in endpoints]
    config = Config.model_validate(
        {"outbox": {"url": url}, "endpoints": endpoints, "shutdown": {"grace": "20s"}, "admin": {"listen": None}}
    )

    async def serve() -> None:
        show_where(where)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        while not stop.is_set():
            try:
                await run_service(config, stop, Unchanged(config), asyncio.Event(), {}, role="dispatch")
            except OutboxError as error:  # the server is down as it starts: a supervisor starts it again
                logging.getLogger("chaos").warning("%s", error)
                await asyncio.sleep(0.5)

    asyncio.run(serve())


def produce(url: str, first: int, streams: int, per_second: float, said: Connection, where: str) -> None:
    """Append to so many streams at a time, until SIGTERM, and say what was acknowledged.

    Streams are numbered from ``first`` on. ``where``: see ``show_where``.
    """
    asyncio.run(_produce(url, first, streams, per_second, said, where))


async def _produce(url: str, first: int, streams: int, per_second: float, said: Connection, where: str) -> None:
    _shorten()
    show_where(where)
    clock, dice, stop = SystemClock(), random.Random(first), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    outbox = None
    while outbox is None and not stop.is_set():
        try:
            outbox = await Outbox.open(url, name=f"producer-{first}", clock=clock)
        except OutboxError:  # the server is down as it starts: a supervisor starts it again
            await asyncio.sleep(0.5)
    if outbox is None:
        return
    numbers = iter(range(first, first + 100_000))

    async def speak() -> None:
        while not stop.is_set():
            number = next(numbers)
            try:
                log = await outbox.open_stream(new_stream(number))
                for _ in range(dice.randint(*EVENTS_OF_A_STREAM)):
                    await asyncio.sleep(dice.uniform(0, 2 * streams / per_second))
                    if stop.is_set():
                        break
                    await log.append([durable(number, log.last_sequence + 1, at=clock.now_ms())])
                    said.send((log.id, log.last_sequence))
                await log.append([ended(number, log.last_sequence + 1, at=clock.now_ms())])
                said.send((log.id, log.last_sequence))
            except OutboxError:  # stopped for so long that another process has ended the stream
                continue

    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(speak())
    await outbox.aclose()
