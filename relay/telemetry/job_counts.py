"""Brings what job processes count to the service, over a socket that each job connects to.

A job sends what it has counted since its last report, so that nothing of it is lost when it dies, up to the last
second; its connection ends with it, and leaves nothing behind.
"""

import asyncio
import json
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from relay.telemetry.metrics import Counter, Histogram

EVERY_S = 1.0
"""Seconds between two reports of a job."""

_LONGEST_REPORT = 1 << 20
_LONGEST_PATH = 100
"""Bytes of a socket's path: 104 on macOS, with the final zero."""
_LAST_REPORT_S = 1.0

Levels = Mapping[str, float]
"""Values of this moment, by name."""

log = logging.getLogger(__name__)


class JobCounts:
    """Adds the reports of jobs to the service's counters, while the context is entered."""

    def __init__(self, families: Sequence[Counter | Histogram]) -> None:
        self._families = {family.name: family for family in families}
        self.on_appended: Callable[[list[Any]], None] | None = None
        """Called with the events that a job has appended, where they are traced."""
        self._levels: dict[asyncio.StreamWriter, Levels] = {}
        self.path = ""
        """The socket, for :class:`CountReports`."""

    async def __aenter__(self) -> Self:
        self.path = _place()
        self._server = await asyncio.start_unix_server(self._receive, self.path, limit=_LONGEST_REPORT)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._levels):
            writer.close()
        shutil.rmtree(os.path.dirname(self.path), ignore_errors=True)  # noqa: PTH120 - no I/O

    def level(self, name: str) -> float:
        """The sum of a level over all jobs that are alive."""
        return sum(levels.get(name, 0) for levels in self._levels.values())

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._levels[writer] = {}
        try:
            while line := await reader.readline():
                report = json.loads(line)
                self._levels[writer] = report["levels"]
                for name, changes in report["counts"].items():
                    self._families[name].add(changes)
                if self.on_appended is not None and (appended := report.get("appended")):
                    self.on_appended(appended)
        except (ConnectionError, ValueError, LookupError, TypeError) as error:
            log.warning("a job's counts cannot be read (%s): the metrics lack what it counts", type(error).__name__)
        finally:
            del self._levels[writer]
            writer.close()


def _place() -> str:
    """A path for the socket, in a new folder that only this user may enter."""
    folder = tempfile.mkdtemp(prefix="speech-relay-")
    if len(os.fsencode(folder)) > _LONGEST_PATH - len("/counts"):
        Path(folder).rmdir()
        folder = tempfile.mkdtemp(prefix="speech-relay-", dir="/tmp")
    return f"{folder}/counts"


class CountReports:
    """A job's side: reports every second, once started."""

    def __init__(
        self,
        path: str,
        families: Sequence[Counter | Histogram],
        levels: Callable[[], Levels],
        appended: deque[Any] | None = None,
    ) -> None:
        """``appended`` are events to be traced. Each report takes those that are there."""
        self._path, self._families, self._levels, self._appended = path, families, levels, appended
        self._reporting: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reported: Levels = {}

    async def start(self) -> None:
        """Connect, and report from now on. Without a connection the job goes on, and is not counted."""
        try:
            _, self._writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            log.warning("what this room's process counts is missing from the metrics: %s", error.strerror)
            return
        self._reporting = asyncio.create_task(self._run(self._writer), name="counts")

    async def aclose(self) -> None:
        """Send the last report."""
        if self._reporting is None or self._writer is None:
            return
        self._reporting.cancel()
        self._report(self._writer)
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LAST_REPORT_S):
                await self._writer.wait_closed()

    async def _run(self, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            if not writer.transport.get_write_buffer_size():  # else the service does not read: report it all later
                self._report(writer)
            await asyncio.sleep(EVERY_S)

    def _report(self, writer: asyncio.StreamWriter) -> None:
        counts: dict[str, Any] = {family.name: more for family in self._families if (more := family.take())}
        levels = self._levels()
        if counts or levels != self._reported:
            self._reported = levels
            report: dict[str, Any] = {"counts": counts, "levels": levels}
            if self._appended:
                report["appended"] = [self._appended.popleft() for _ in range(len(self._appended))]
            writer.write(json.dumps(report).encode() + b"\n")
