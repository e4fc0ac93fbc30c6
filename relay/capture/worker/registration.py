"""An ``AgentServer`` that reports whether LiveKit currently knows it.

livekit-agents 1.8.9 reports its registration but not the loss of it; after an outage it waits up to 10 s between its
attempts, during which it gets no room; it reports its load every 2.5 s; and it opens its own HTTP port without any
limit on connections. Its private parts are used here, in ``preload`` and ``warm_up``, and nowhere else;
``tests/unit/test_livekit_registration.py`` lists them.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import aiohttp
from livekit.agents import AgentServer
from livekit.agents.ipc import supervised_proc
from livekit.agents.utils.aio import cancel_and_wait
from livekit.agents.utils.http_server import HttpServer

from relay.capture.worker.job_processes import end_at_once


class _NoHttpServer(HttpServer):
    """Replaces the health check port: the relay has its own, and this one could exhaust its descriptors."""

    async def start(self) -> None:
        pass


class RegisteredServer(AgentServer):
    """``on_change`` is called with whether the server knows this worker, whenever that changes."""

    def __init__(self, *, on_change: Callable[[bool], None], **options: Any) -> None:
        self._no_http_server = _NoHttpServer("", 0)
        if sys.platform == "linux":
            # It ignores Ctrl-C while it starts a process, for seconds where the fork server still imports: the signal
            # would be lost. The fork server blocks it already.
            supervised_proc._mask_ctrl_c = nullcontext  # type: ignore[assignment]  # noqa: SLF001
        super().__init__(**options)
        self._on_change = on_change
        self._again = asyncio.Event()
        self._connected = False
        self.may_register = asyncio.Event()
        """While it is cleared, the server only starts its processes."""
        self.may_register.set()

    @property
    def _http_server(self) -> HttpServer:
        return self._no_http_server

    @_http_server.setter
    def _http_server(self, _: HttpServer | None) -> None:
        """The port that ``AgentServer.run`` creates is not used."""

    def connect_now(self) -> None:
        """Skip the wait for the next attempt: the server is back. No effect on an open connection."""
        self._again.set()

    def keep_warm(self, processes: int) -> None:
        """Keep this many job processes ready for rooms. Ready ones stay. Only after ``worker_started``."""
        # it reads the number once, at its start, and waits there until all of them are ready
        self._proc_pool._default_num_idle_processes = processes  # noqa: SLF001
        self._proc_pool.set_target_idle_processes(processes)

    async def abandon(self) -> None:
        """End the processes of a start that has failed, without waiting until they are ready.

        ``run`` must have been cancelled.
        """
        pool = getattr(self, "_proc_pool", None)  # since it runs
        if pool is None:
            end_at_once()
            return
        for starting in pool._spawn_tasks:  # noqa: SLF001
            starting.cancel()
        for process in pool.processes:
            process._kill_sent = True  # noqa: SLF001 - or it would log the end of its process as an error
        end_at_once()
        await pool.aclose()
        await self.aclose()  # its HTTP session, too

    async def report_load(self) -> None:
        """Measure, and report to the server now."""
        await self._refresh_worker_load()
        await self._update_worker_status()

    async def _run_ws(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._change(True)
        try:
            await super()._run_ws(ws)
        finally:
            self._change(False)

    def _change(self, connected: bool) -> None:
        self._connected = connected
        self._on_change(connected)

    async def _connection_task(self) -> None:
        await self.may_register.wait()
        while True:
            self._again.clear()
            connection = asyncio.create_task(super()._connection_task(), name="worker_connection")
            again = asyncio.create_task(self._asked_again(), name="worker_connect_now")
            try:
                await asyncio.wait([connection, again], return_when=asyncio.FIRST_COMPLETED)
                if connection.done():
                    return connection.result()
            finally:
                await cancel_and_wait(connection, again)

    async def _asked_again(self) -> None:
        while True:
            await self._again.wait()
            if not self._connected:
                return
            self._again.clear()
