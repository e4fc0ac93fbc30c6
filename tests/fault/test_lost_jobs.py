"""A job that was killed is not waited for until its lease is over, and one that lives is left alone."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.errors import StreamTaken
from relay.orphans import close_orphans_once, job_name
from relay.outbox.outbox import Outbox
from tests.support.outbox_store import new_stream


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


@pytest.mark.parametrize("own_jobs", [True, False], ids=["seen by its service", "seen from another container"])
async def test_only_the_service_ends_what_a_job_that_is_gone_had_open(
    outbox: Outbox, tmp_path: Path, own_jobs: bool
) -> None:
    url, clock = f"sqlite:///{tmp_path}/relay.db", SystemClock()
    names = [job_name(await gone()), job_name(os.getpid()), "agent"]
    writers = [await Outbox.open(url, name=name, clock=clock) for name in names]
    try:
        for number, writer in enumerate(writers, 1):
            await writer.open_stream(new_stream(number))
        await close_orphans_once(outbox, clock, own_jobs=own_jobs)
        free = [await can_be_opened(outbox, number) for number in (1, 2, 3)]
        assert free == [own_jobs, False, False]
    finally:
        for writer in writers:
            await writer.aclose()


async def can_be_opened(outbox: Outbox, number: int) -> bool:
    """Whether the track of that stream is nobody's, which is what the next job waits for."""
    try:
        await outbox.open_stream(new_stream(10 + number, track=new_stream(number).track_sid))
    except StreamTaken:
        return False
    return True
