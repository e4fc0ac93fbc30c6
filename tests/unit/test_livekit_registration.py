"""What livekit-agents keeps to itself, and the relay reaches: named here, so that a new version of it is looked at."""

import asyncio
import inspect
from multiprocessing import forkserver

import pytest
from livekit.agents import AgentServer
from livekit.agents.ipc import supervised_proc
from livekit.agents.ipc.proc_pool import ProcPool
from livekit.agents.telemetry import loop_monitor
from livekit.agents.utils import http_context
from livekit.agents.utils.http_server import HttpServer

from relay.capture.worker.registration import RegisteredServer


@pytest.mark.parametrize("name", ["_connection_task", "_run_ws", "_refresh_worker_load", "_update_worker_status"])
def test_what_is_overridden_or_called_is_there(name: str) -> None:
    assert inspect.iscoroutinefunction(inspect.unwrap(getattr(AgentServer, name)))


def test_the_parts_are_called_in_the_order_that_is_built_on() -> None:
    connecting = inspect.getsource(inspect.unwrap(AgentServer._connection_task))
    assert connecting.index("self._handle_register(") < connecting.index("self._run_ws(ws)")
    assert "asyncio.sleep(retry_delay)" in connecting


def test_no_second_http_port_is_opened_beside_the_admin_port() -> None:
    run = inspect.getsource(inspect.unwrap(AgentServer.run))
    assert "self._http_server = http_server.HttpServer(" in run
    assert "await self._http_server.start()" in run
    server = RegisteredServer(on_change=lambda _: None, ws_url="ws://127.0.0.1:1", api_key="k", api_secret="s")
    instead = server._http_server
    server._http_server = HttpServer("127.0.0.1", 0)
    assert server._http_server is instead
    asyncio.run(instead.start())
    assert instead.port == 0


async def test_asked_to_connect_it_does_not_wait_for_its_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = asyncio.Semaphore(0)

    async def waits_for_ever(_: AgentServer) -> None:
        attempts.release()
        await asyncio.Event().wait()

    monkeypatch.setattr(AgentServer, "_connection_task", waits_for_ever)
    server = RegisteredServer(on_change=lambda _: None, ws_url="ws://127.0.0.1:1", api_key="k", api_secret="s")
    connecting = asyncio.create_task(server._connection_task())
    try:
        async with asyncio.timeout(30):
            await attempts.acquire()
            server.connect_now()
            await attempts.acquire()
    finally:
        connecting.cancel()
        await asyncio.wait([connecting])


async def test_it_connects_only_once_it_may_register(monkeypatch: pytest.MonkeyPatch) -> None:
    connects = asyncio.Event()

    async def connecting(_: AgentServer) -> None:
        connects.set()

    monkeypatch.setattr(AgentServer, "_connection_task", connecting)
    server = RegisteredServer(on_change=lambda _: None, ws_url="ws://127.0.0.1:1", api_key="k", api_secret="s")
    server.may_register.clear()
    running = asyncio.create_task(server._connection_task())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not connects.is_set()
    server.may_register.set()
    async with asyncio.timeout(30):
        await running
    assert connects.is_set()


def test_a_start_that_is_abandoned_finds_the_processes_that_begin() -> None:
    assert "self._spawn_tasks.add(task)" in inspect.getsource(inspect.unwrap(ProcPool._main_task))
    assert inspect.iscoroutinefunction(ProcPool.aclose)
    assert "_forkserver_pid" in vars(forkserver._forkserver)
    assert "if self._exitcode != 0 and not self._kill_sent:" in inspect.getsource(supervised_proc)


def test_the_pool_of_processes_has_what_keeps_more_of_them_warm() -> None:
    filling = inspect.getsource(inspect.unwrap(ProcPool._main_task))
    assert "min(self._target_idle_processes, self._default_num_idle_processes)" in filling
    assert callable(ProcPool.set_target_idle_processes)
    assert "self._proc_pool = ipc.proc_pool.ProcPool(" in inspect.getsource(AgentServer.run)


def test_a_jobs_http_session_uses_the_certificates_that_were_read_for_all_of_them() -> None:
    assert http_context._create_ssl_context() is http_context._create_ssl_context()
    assert "_create_ssl_context()" in inspect.getsource(http_context._new_session_ctx)


def test_the_monitor_of_blocked_loops_is_switched_off_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS", "0")
    assert loop_monitor.LoopMonitorThresholds.from_env() is None
