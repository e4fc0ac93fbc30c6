"""What this process says of itself in the log, where the others of its fleet and ``speech-relay status`` read it."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from relay import __version__
from relay.clock import Clock
from relay.errors import OutboxError
from relay.outbox.log.processes import ProcessState, Role
from relay.outbox.outbox import Outbox

EVERY_S = 1.0
"""Seconds between two reports."""

STUCK_AFTER_MS = 15_000
"""Without a write for this long, the log is stuck."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the process does, and how busy its machine is."""

    waits_for: tuple[str, ...]
    """Why it is not ready, in words."""
    rooms_heard: int = 0
    rooms_unheard: int = 0
    jobs: int = 0
    lanes: int = 0
    cpu_load: float = 0.0
    cpu_limit: float = 1.0
    refusing: bool = False
    endpoints: tuple[str, ...] = ()


class StatusReports:
    """Reports for one process while the context is entered. The last report says that it has stopped.

    A bug in them cancels the body and is raised: the others take a process that no longer reports for a dead one, and
    would send what it still sends.
    """

    def __init__(
        self, outbox: Outbox, clock: Clock, figures: Callable[[], Figures], *, process: str, role: Role = "run"
    ) -> None:
        self._outbox, self._clock, self._figures = outbox, clock, figures
        self._process, self._role = process, role
        self._host, self._pid = this_host(), os.getpid()
        self._started_at = clock.now_ms()
        self._ready_at: int | None = None
        self._tasks = asyncio.TaskGroup()
        self._written_at = clock.steady_ms()
        self._failure = ""
        """Why the last write failed."""

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._reporting = self._tasks.create_task(self._run(), name="status")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reporting.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._report(stopped=True)

    async def ready(self) -> None:
        """Record that the service is ready from now on."""
        self._ready_at = self._clock.now_ms()
        await self._report()

    def log_problem(self) -> str | None:
        """Why the log cannot be written, as these reports show, which are written like any event."""
        if self._failure:
            return f"the log cannot be written: {self._failure}; nothing is recorded until it can"
        for_s = (self._clock.steady_ms() - self._written_at) / 1000
        if for_s * 1000 < STUCK_AFTER_MS:
            return None
        return f"the log has taken no write for {for_s:.0f} s: look for a process that holds it, or a disk that hangs"

    async def _run(self) -> None:
        while True:
            await self._report()
            await asyncio.sleep(EVERY_S)

    async def _report(self, *, stopped: bool = False) -> None:
        now, figures = self._clock.now_ms(), self._figures()
        state = ProcessState(
            id=self._process,
            role=self._role,
            host=self._host,
            pid=self._pid,
            version=__version__,
            started_at=self._started_at,
            ready_at=self._ready_at,
            seen_at=now,
            stopped_at=now if stopped else None,
            waits_for="; ".join(figures.waits_for),
            rooms_heard=0 if stopped else figures.rooms_heard,
            rooms_unheard=0 if stopped else figures.rooms_unheard,
            jobs=0 if stopped else figures.jobs,
            lanes=0 if stopped else figures.lanes,
            cpu_load=figures.cpu_load,
            cpu_limit=figures.cpu_limit,
            refusing=figures.refusing,
            endpoints=figures.endpoints,
        )
        try:
            await self._outbox.note_process(state)
        except OutboxError as error:  # in the log, writers that append report it
            self._failure = str(error)
        else:
            self._failure, self._written_at = "", self._clock.steady_ms()


def is_gone(state: ProcessState) -> bool:
    """Whether the process that reported this has certainly ended: in order, or on this machine."""
    return state.stopped_at is not None or (state.host == this_host() and not exists(state.pid))


@cache
def this_host() -> str:
    """Identifies where process ids are unique: a machine since it was started, or a container of it.

    Machines may have the same host name, and the number of the first namespace is the same on all of them.
    """
    try:
        namespace, boot = Path("/proc/self/ns/pid").readlink(), Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()} {namespace} {boot.strip()}"


def process_age_s() -> float:
    """Seconds since this process was started.

    On Linux psutil's start is up to a second off: the kernel gives the time of its boot in whole seconds (proc(5)).
    """
    if sys.platform != "linux":
        return time.time() - psutil.Process().create_time()
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def exists(pid: int) -> bool:
    """Whether a process has this id: of any user, and also one that has ended and is not waited for yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
