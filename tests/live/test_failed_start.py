"""A start that fails after the first job process was begun: one error, and no process left."""

import asyncio
import functools
import gc
import logging
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psutil
import pytest

from relay.capture.livekit.access import Access
from relay.capture.worker.job_processes import job_processes
from relay.capture.worker.worker import Worker
from tests.support.livekit import recording_job
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer
from tests.support.service import Service, service

pytestmark = pytest.mark.live


@pytest.mark.parametrize("role", ["run", "worker"])
async def test_an_unusable_log_ends_a_start_with_one_error(server: LiveKitServer, tmp_path: Path, role: str) -> None:
    with closing(sqlite3.connect(tmp_path / "relay.db")) as other:
        other.execute("CREATE TABLE invoices (id INTEGER)")
    async with service(server, "http://127.0.0.1:9/", tmp_path, role=role) as relay:
        await relay.launch()
        group = relay.process.pid
        assert await relay.ended() == 2
        (error,) = _errors(relay)
        assert error.endswith("is the database of something else: name another one in outbox.url")
        await _until_all_have_ended(group)


async def test_a_log_that_fails_once_a_job_waits_ends_the_start_the_same(server: LiveKitServer, tmp_path: Path) -> None:
    async with _mute_server() as (port, hang_up):
        variables = {"SPEECH_RELAY__OUTBOX__URL": f"postgresql://u@127.0.0.1:{port}/log"}
        async with service(server, "http://127.0.0.1:9/", tmp_path, variables=variables) as relay:
            await relay.launch()
            process = relay.process
            # it waits for the database for 5 s
            while process.is_running() and not _has_a_job_process(process):  # noqa: ASYNC110 - they are other processes
                await asyncio.sleep(0.02)
            hang_up.set()
            assert await relay.ended() == 2
            (error,) = _errors(relay)
            assert error.startswith("outbox postgresql://")
            await _until_all_have_ended(process.pid)


@pytest.mark.parametrize("begun", ["nothing", "a process", "all"])
async def test_what_a_failed_start_leaves_behind_ends_without_a_word(
    server: LiveKitServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, begun: str
) -> None:
    """The error is why it failed. What livekit-agents says of processes that the relay ends itself hides that."""
    worker = Worker(
        Access(server.url, API_KEY, API_SECRET),
        entry=recording_job.entry,
        on_session_end=recording_job.on_session_end,
        setup=functools.partial(recording_job.prepare, recording_job.Settings(tmp_path / "notes")),
        rooms=("*",),
        grace_s=8.0,
    )
    started = asyncio.Event()
    worker._server.on("worker_started", started.set)
    worker.begin()
    async with asyncio.timeout(120):
        if begun == "a process":
            while not job_processes():  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.01)
        if begun == "all":
            await started.wait()
        await worker.abandon()
    assert not job_processes()
    gc.collect()  # aiohttp reports a session that nobody closed when it is collected
    await asyncio.sleep(0)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


@asynccontextmanager
async def _mute_server() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port that answers nothing, until it is made to hang up."""
    hang_up = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hang_up.wait()
        writer.close()

    mute = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with mute:
        yield mute.sockets[0].getsockname()[1], hang_up


def _has_a_job_process(process: psutil.Process) -> bool:
    """Whether its fork server has a child."""
    try:
        return any(child.children() for child in process.children())
    except psutil.NoSuchProcess:
        return False


def _errors(relay: Service) -> list[str]:
    """What it said beside the lines of its log, which are JSON, and state the plan at least."""
    return [line for line in relay.log.read_text().splitlines() if not line.startswith('{"time": ')]


async def _until_all_have_ended(group: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.02)
