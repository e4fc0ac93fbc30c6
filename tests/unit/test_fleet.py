"""What one process of a fleet concludes of the others, and who does what only one may do."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from pathlib import Path

import pytest

from relay.app.fleet import HELD_MS, HUNG_AFTER_MS, LONG_AGO_MS, SILENT_AFTER_MS, Fleet, Silence, on_duty
from relay.app.orphans import job_name
from relay.app.status import this_host
from relay.outbox.log.processes import ProcessState
from relay.outbox.outbox import Outbox
from tests.support.builders import dead_pid, new_stream, process
from tests.support.outbox.outbox_store import Store, sqlite

NOW = 1_700_000_000_000


def test_silence_is_measured_by_ones_own_clock_whatever_the_other_clock_says() -> None:
    silence = Silence("me")
    for second in range(6):
        silence.heard({"me": second, "skewed": NOW - 30_000, "beats": second}, NOW, second * 1000)
    assert [silence.of(name, 5_000) for name in ("me", "skewed", "beats", "unknown")] == [0, 5_000, 0, LONG_AGO_MS]


def test_a_report_from_long_ago_was_silent_before_it_was_first_seen() -> None:
    silence = Silence("me")
    silence.heard({"me": 0, "dead": NOW - LONG_AGO_MS - 1, "fresh": NOW - 1_000}, NOW, 10_000)
    assert (silence.of("dead", 10_000), silence.of("fresh", 10_000)) == (LONG_AGO_MS, 0)


@pytest.mark.parametrize("stalls", ["the log takes no reports", "this process does not look"])
def test_nobody_is_silent_because_nobody_can_report_or_look(stalls: str) -> None:
    silence = Silence("me")
    silence.heard({"me": NOW, "other": NOW}, NOW, 0)
    looks = range(500, 10_000, 500) if stalls == "the log takes no reports" else [10_000]
    for at in looks:
        silence.heard({"me": NOW, "other": NOW}, NOW, at)
        assert silence.of("other", at) <= SILENT_AFTER_MS
    silence.heard({"me": NOW + 1, "other": NOW}, NOW, 10_500)
    assert silence.of("other", 10_500) <= SILENT_AFTER_MS
    for at in range(11_000, 14_500, 500):  # reports arrive again, and the other's do not
        silence.heard({"me": NOW + at, "other": NOW}, NOW, at)
    assert silence.of("other", 14_000) > SILENT_AFTER_MS


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite(tmp_path) as store:
        yield store


class Watched:
    """A fleet as the process ``me`` sees it, second by second."""

    def __init__(self, outbox: Outbox, store: Store, *, sole: bool = False) -> None:
        self.outbox, self.clock = outbox, store.clock
        self.fleet = Fleet(outbox, store.clock, "me", sole=sole)

    async def note(self, *states: ProcessState) -> None:
        for state in states:
            await self.outbox.note_process(replace(state, seen_at=self.clock.now_ms()))

    async def passes(self, ms: int, *reporting: ProcessState) -> None:
        """Let this time pass, in which these processes and ``me`` report."""
        for _ in range(0, ms, 500):
            self.clock.at += 500
            await self.note(process("me", role="run"), *reporting)
            await self.fleet.look()


@pytest.fixture
async def watched(store: Store) -> Watched:
    return Watched(await store.open(), store)


async def test_a_fleet_sees_who_delivers_and_who_takes_rooms(watched: Watched) -> None:
    busy, sender = process("worker", waits_for="this machine is busy"), process("sender", role="dispatch")
    await watched.note(process("silent", role="dispatch"), process("over", role="run", stopped_at=NOW), busy, sender)
    await watched.passes(500, busy, sender)
    assert watched.fleet.dispatchers() == ["me", "sender", "silent"]
    await watched.passes(SILENT_AFTER_MS + 500, busy, sender)
    assert watched.fleet.dispatchers() == ["me", "sender"]
    assert not watched.fleet.others_take_rooms(), "the only other worker waits for something"
    assert watched.fleet.lost_workers == watched.fleet.ended() == {"over"}
    await watched.passes(500, process("worker"))
    assert watched.fleet.others_take_rooms()
    assert not watched.fleet.is_here("worker")


async def test_a_worker_of_another_machine_is_lost_when_it_and_its_jobs_are_silent(
    watched: Watched, store: Store
) -> None:
    job = await store.open(job_name("hangs", 7), lease_ms=6_000)
    await watched.note(process("dies"), process("hangs"))
    await watched.passes(500)
    for second in range(10):  # the job's loop is alive
        await job.open_stream(new_stream(second))
        await watched.passes(1_000)
    assert watched.fleet.lost_workers == {"dies"}
    await watched.passes(SILENT_AFTER_MS + 500)
    assert watched.fleet.lost_workers == {"dies", "hangs"}
    await watched.passes(500, process("hangs"))
    assert watched.fleet.lost_workers == {"dies"}, "it has reported again"


async def test_a_process_of_this_machine_is_lost_once_its_id_is_gone_and_later_if_it_hangs(watched: Watched) -> None:
    await watched.note(
        process("hangs", host=this_host(), pid=os.getppid()), process("killed", host=this_host(), pid=dead_pid())
    )
    await watched.passes(500)
    assert watched.fleet.lost_workers == watched.fleet.ended() == {"killed"}
    assert not watched.fleet.workers_hang()
    await watched.passes(HUNG_AFTER_MS)
    assert watched.fleet.lost_workers == {"killed"}
    assert watched.fleet.workers_hang()
    await watched.passes(500)
    assert watched.fleet.lost_workers == {"killed", "hangs"}


async def test_a_restarted_container_does_not_take_itself_for_its_predecessor(watched: Watched) -> None:
    await watched.note(process("former", host=this_host(), pid=os.getpid()))
    await watched.passes(500)
    assert watched.fleet.lost_workers == watched.fleet.ended() == {"former"}


async def test_who_alone_may_deliver_knows_that_others_which_did_have_ended(store: Store) -> None:
    watched = Watched(await store.open(), store, sole=True)
    worker = process("worker")
    await watched.note(process("former", role="run"), worker)
    await watched.passes(500, worker)
    assert watched.fleet.lost_workers == watched.fleet.ended() == {"former"}


async def test_dispatchers_with_different_endpoints_are_named_once(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.passes(1_500, process("other", "dispatch", endpoints=("bi", "crm")))
    told = [record.message for record in caplog.records if "different endpoints: not all have bi;" in record.message]
    assert len(told) == 1


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


def begun(outbox: Outbox, process: str, work: Working, ended: Collection[str] = ()) -> "asyncio.Task[None]":
    return asyncio.create_task(on_duty("coverage", work, outbox=outbox, process=process, ended=lambda: ended))


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


async def test_a_duty_of_a_process_that_has_ended_is_taken_at_once(store: Store) -> None:
    outbox, work = await store.open(), Working()
    assert await outbox.hold_duty("coverage", "dead", for_ms=86_400_000)
    task = begun(outbox, "next", work, ended=["dead"])
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
        await on_duty("coverage", fail, outbox=await store.open(), process="one", ended=list)


def test_the_age_of_a_process_is_counted_from_its_start() -> None:
    before = time.monotonic()
    script = "import time; from relay.app.status import process_age_s; print(-process_age_s() + time.monotonic())"
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert before - tick <= float(printed) <= time.monotonic(), "between the moments before and after it"
