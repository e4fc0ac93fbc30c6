"""What one process of a fleet concludes of the others, and who does what only one may do."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from relay.app.duties import HELD_MS, on_duty
from relay.app.fleet import SILENT_AFTER_MS, Fleet, lost_workers, works
from relay.app.orphans import job_name
from relay.app.status import this_host
from relay.outbox.log.processes import ProcessState
from relay.outbox.outbox import Outbox
from tests.support.builders import dead_pid
from tests.support.outbox.outbox_store import Store, sqlite

NOW = 1_700_000_000_000


def process(name: str, **changed: object) -> ProcessState:
    whole = ProcessState(
        id=name,
        role="worker",
        host="elsewhere",
        pid=1,
        version="1",
        started_at=NOW,
        ready_at=NOW,
        seen_at=NOW,
        stopped_at=None,
        waits_for="",
        rooms_heard=0,
        rooms_unheard=0,
        jobs=0,
        lanes=0,
        cpu_load=0.1,
        cpu_limit=0.7,
        refusing=False,
    )
    return replace(whole, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "works_at_once", "works_later"),
    [
        (process("far"), True, None),
        (process("stopped", stopped_at=NOW), False, False),
        (process("here", host=this_host(), pid=os.getpid()), True, None),
        (process("killed here", host=this_host(), pid=0x3FFFFF), False, False),
    ],
    ids=lambda one: one.id if isinstance(one, ProcessState) else "",
)
def test_a_silent_process_may_work_and_an_ended_one_does_not(
    state: ProcessState, works_at_once: bool | None, works_later: bool | None
) -> None:
    assert works(state, NOW + SILENT_AFTER_MS) is works_at_once
    assert works(state, NOW + SILENT_AFTER_MS + 1) is works_later


def test_a_worker_is_lost_with_its_jobs_and_not_while_one_of_them_lives() -> None:
    silent = [process("a"), process("b"), process("ended", stopped_at=NOW)]
    now = NOW + SILENT_AFTER_MS + 1
    beats = {job_name("a", 1): NOW, job_name("b", 1): NOW, job_name("b", 2): now, "c": now}
    assert lost_workers(silent, beats, now) == {"a", "ended"}
    assert lost_workers(silent, {}, NOW) == {"ended"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite(tmp_path) as store:
        yield store


async def test_a_fleet_sees_who_delivers_and_who_takes_rooms(store: Store) -> None:
    outbox, clock = await store.open(), store.clock
    now = clock.now_ms()
    fleet = Fleet(outbox, clock, "me")
    for name, role, more in (
        ("me", "run", {}),
        ("worker", "worker", {"waits_for": "this machine is busy"}),
        ("sender", "dispatch", {}),
        ("lost", "dispatch", {"seen_at": now - SILENT_AFTER_MS - 1}),
        ("over", "run", {"stopped_at": now}),
    ):
        await outbox.note_process(process(name, **{"role": role, "seen_at": now, **more}))
    await fleet.look()
    assert fleet.dispatchers() == ["me", "sender"]
    assert not fleet.others_take_rooms(), "the only other worker waits for something"
    assert fleet.lost_workers == {"over"}
    await outbox.note_process(process("worker", seen_at=now))
    await fleet.look()
    assert fleet.others_take_rooms()
    assert not fleet.is_here("worker")


class Working:
    """Work that says when it runs."""

    def __init__(self) -> None:
        self.runs = asyncio.Event()

    async def __call__(self) -> None:
        self.runs.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.runs.clear()


def begun(outbox: Outbox, process: str, work: Working) -> "asyncio.Task[None]":
    return asyncio.create_task(on_duty("coverage", work, outbox=outbox, process=process))


async def test_a_duty_has_one_process_and_goes_on_with_the_next(store: Store) -> None:
    outbox, first, second = await store.open(), Working(), Working()
    one = begun(outbox, "one", first)
    async with asyncio.timeout(30):
        await first.runs.wait()
        assert not await outbox.hold_duty("coverage", "two", for_ms=HELD_MS)
        two = begun(outbox, "two", second)
        one.cancel()
        await asyncio.wait([one])
        assert not first.runs.is_set()
        await outbox.leave_duties("one")
        await second.runs.wait()
        two.cancel()
        await asyncio.wait([two])


async def test_a_duty_of_a_process_that_died_here_is_taken_at_once(store: Store) -> None:
    outbox, work = await store.open(), Working()
    await outbox.note_process(process("dead", host=this_host(), pid=dead_pid()))
    assert await outbox.hold_duty("coverage", "dead", for_ms=86_400_000)
    task = begun(outbox, "next", work)
    async with asyncio.timeout(30):
        await work.runs.wait()
    task.cancel()
    await asyncio.wait([task])


async def test_a_process_whose_duty_was_taken_ends_its_work(store: Store) -> None:
    outbox, work = await store.open(), Working()
    task = begun(outbox, "slow", work)
    async with asyncio.timeout(30):
        await work.runs.wait()
        assert await outbox.hold_duty("coverage", "other", for_ms=86_400_000, gone=["slow"])
        while work.runs.is_set():  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])


async def test_what_the_work_raises_is_raised(store: Store) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await on_duty("coverage", fail, outbox=await store.open(), process="one")
