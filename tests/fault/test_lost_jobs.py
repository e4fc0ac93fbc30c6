"""A job that was killed is not waited for until its lease is over, one that hangs is killed, and one that is well is
left alone."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.app.orphans import THAW_S, OwnJobs, close_orphans, close_orphans_once, job_name
from relay.clock import SystemClock
from relay.errors import StreamTaken
from relay.outbox.log.heartbeat import LEASE_MS
from relay.outbox.outbox import Outbox
from tests.support.builders import new_stream, stream_id
from tests.support.outbox.outbox_store import sqlite, until


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    running = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="relay", clock=SystemClock())
    yield running
    await running.aclose()


async def gone() -> int:
    """The id of a process that has ended."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()
    return process.pid


def nothing_hangs(pid: int) -> bool:
    raise AssertionError(f"process {pid} is to be killed")


@pytest.mark.parametrize(
    "own_jobs", [OwnJobs("now", nothing_hangs), None], ids=["seen by its service", "seen from another container"]
)
async def test_only_the_service_ends_what_a_job_that_is_gone_had_open(
    outbox: Outbox, tmp_path: Path, own_jobs: OwnJobs | None
) -> None:
    url, clock = f"sqlite:///{tmp_path}/relay.db", SystemClock()
    names = [job_name("before", await gone()), job_name("now", os.getpid()), f"agent-{await gone()}"]
    writers = [await Outbox.open(url, name=name, clock=clock) for name in names]
    try:
        for number, writer in enumerate(writers, 1):
            await writer.open_stream(new_stream(number))
        await close_orphans_once(outbox, clock, own_jobs=own_jobs)
        free = [await can_be_opened(outbox, number) for number in (1, 2, 3)]
        assert free == [own_jobs is not None, False, False]
    finally:
        for writer in writers:
            await writer.aclose()


async def test_streams_of_a_worker_lost_with_its_machine_end_before_their_leases_do(
    outbox: Outbox, tmp_path: Path
) -> None:
    url, clock = f"sqlite:///{tmp_path}/relay.db", SystemClock()
    # their ids exist here, too, and mean nothing
    writers = [await Outbox.open(url, name=job_name(name, os.getpid()), clock=clock) for name in ("lost", "lives")]
    try:
        for number, writer in enumerate(writers, 1):
            await writer.open_stream(new_stream(number))
        seen = OwnJobs("now", nothing_hangs, is_here=lambda _: False, is_lost=lambda process: process == "lost")
        await close_orphans_once(outbox, clock, own_jobs=seen)
        assert [await can_be_opened(outbox, number) for number in (1, 2)] == [True, False]
    finally:
        for writer in writers:
            await writer.aclose()


async def test_a_job_that_hangs_is_killed_and_no_other_process(tmp_path: Path) -> None:
    children = [await asyncio.create_subprocess_exec("sleep", "60") for _ in range(4)]
    hung, former, agent, well = [child.pid for child in children]
    killed: list[int] = []

    def kill(pid: int) -> bool:
        killed.append(pid)
        return True

    try:
        async with sqlite(tmp_path) as store:
            relay = await store.open("relay")
            silent = [job_name("now", hung), job_name("before", former), f"agent-{agent}", job_name("now", well)]
            for number, name in enumerate(silent, 1):
                await (await store.open(name)).open_stream(new_stream(number))
            await close_orphans_once(relay, store.clock, own_jobs=OwnJobs("now", nothing_hangs))
            store.clock.at += LEASE_MS
            await (await store.open(job_name("now", well))).open_stream(new_stream(5))
            await close_orphans_once(relay, store.clock, own_jobs=OwnJobs("now", kill))
    finally:
        for child in children:
            child.kill()
            await child.wait()
    assert killed == [hung], "only the process that hangs may be killed"


async def test_those_who_were_frozen_together_get_the_time_of_a_heartbeat(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looked, thawing, is_over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        if seconds == THAW_S:
            thawing.set()
            await is_over.wait()
        else:
            looked.set()
            await asyncio.sleep(0)

    async with sqlite(tmp_path) as store:
        lease_ms = 600_000  # so long that none is renewed by itself meanwhile
        relay, job, dead = [await store.open(name, lease_ms=lease_ms) for name in ("relay", "job", "dead")]
        await job.open_stream(new_stream(1))
        await dead.open_stream(new_stream(2))
        looking = asyncio.create_task(close_orphans(relay, store.clock, sleep=sleep))
        await looked.wait()
        store.clock.at += lease_ms + 1
        await thawing.wait()
        await job.open_stream(new_stream(3))  # which renews its lease
        is_over.set()
        await until(lambda: f"stream {stream_id(2)} lost the process" in caplog.text)
        looking.cancel()
        assert stream_id(1) not in caplog.text


async def can_be_opened(outbox: Outbox, number: int) -> bool:
    """Whether the track of that stream is nobody's, which is what the next job waits for."""
    try:
        await outbox.open_stream(new_stream(10 + number, track=new_stream(number).track_sid))
    except StreamTaken:
        return False
    return True
