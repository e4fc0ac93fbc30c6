"""What is left of a producer that was killed, stopped or raced."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.errors import Fenced
from relay.outbox.outbox import Outbox
from relay.outbox.sqlite.write_lock import WriteLock
from tests.support.builders import ended, stream_id
from tests.support.outbox.outbox_process import STREAMS, Child
from tests.support.outbox.outbox_store import Store, until


@pytest.fixture
def store(either_store: Store) -> Store:
    return either_store


async def check(outbox: Outbox, acknowledged: dict[int, int]) -> dict[int, int]:
    """No gaps, nothing lost that was acknowledged, every event behind an idle lane's back is due. The last ones."""
    last: dict[int, int] = {}
    for number in range(1, STREAMS + 1):
        sequences = [one.sequence for one in await outbox.history(stream_id(number), limit=1_000_000)]
        assert sequences == list(range(1, len(sequences) + 1)), (
            "a stream must have no gap, whenever its writer was killed"
        )
        assert len(sequences) >= acknowledged.get(number, 0), "an acknowledged event is not in the log"
        last[number] = len(sequences)
    heads = await outbox.lanes.last_sequences(range(1, STREAMS + 1))
    assert sorted(heads.values()) == sorted(last.values())
    due = await outbox.lanes.claim({"crm": STREAMS}, lease_ms=1)
    assert {lane.stream for lane in due} == {stream for stream, head in heads.items() if head}
    return last


@pytest.mark.parametrize("commits", [1, 9, 50, 151])
async def test_a_producer_killed_at_any_moment_leaves_no_gap_and_loses_nothing(store: Store, commits: int) -> None:
    store.clock.at = 10**15
    outbox = await store.open("dispatcher")
    await outbox.lanes.sync_endpoints(["crm"])
    acknowledged: dict[int, int] = {}
    async with Child("append", store.url) as child:
        for _ in range(commits):
            number, sequence = map(int, (await child.line()).split())
            acknowledged[number] = sequence
        child.process.kill()
        while line := await child.line():
            number, sequence = map(int, line.split())
            acknowledged[number] = sequence
    await check(outbox, acknowledged)
    assert len(await outbox.orphans()) == STREAMS
    for orphan in await outbox.orphans():
        log = await outbox.take_over(orphan)
        await log.append([ended(int(orphan[4:]), log.last_sequence + 1)])
    assert await outbox.orphans() == []


@pytest.mark.parametrize("either_store", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("step", "company", "committed"),
    [
        ("begin", "alone", False),
        ("append", "alone", True),
        ("begin", "crowded", False),
        ("append", "crowded", False),
        ("commit", "crowded", True),
    ],
)
async def test_a_producer_killed_in_a_transaction_has_written_all_of_it_or_nothing(
    store: Store, step: str, company: str, committed: bool
) -> None:
    store.clock.at = 10**15
    outbox = await store.open("dispatcher")
    await outbox.lanes.sync_endpoints(["crm"])
    acknowledged: dict[int, int] = {}
    async with Child("die", store.url, step, "5", company) as child:
        while line := await child.line():
            number, sequence = map(int, line.split())
            acknowledged[number] = sequence
        assert await child.process.wait() == -signal.SIGKILL
    last = await check(outbox, acknowledged)
    assert max(acknowledged.values()) == 4
    assert max(last.values()) == (5 if committed else 4), "a transaction must be in the log as a whole or not at all"


async def test_of_two_processes_that_open_a_track_at_once_exactly_one_has_it(store: Store) -> None:
    await store.open()
    async with Child("race", store.url, "1") as first, Child("race", store.url, "2") as second:
        for child in (first, second):
            assert await child.line() == "ready"
        for child in (first, second):
            child.go()
        assert sorted([await first.line(), await second.line()]) == ["StreamTaken", "opened"], (
            "exactly one process may write a track's stream"
        )


async def stop(child: Child, store: Store, folder: Path) -> None:
    """Stop it. In SQLite not in the middle of a transaction, which a server ends by itself."""
    if store.kind == "postgresql":
        await freeze(child)
        return
    turn = WriteLock(folder / "relay.db.lock")
    with turn.taken():
        await freeze(child)
    turn.close()


async def freeze(child: Child) -> None:
    os.kill(child.process.pid, signal.SIGSTOP)
    status = Path(f"/proc/{child.process.pid}/stat")
    await until(lambda: status.read_text().rsplit(")", 1)[1].split()[0] == "T")


@pytest.mark.parametrize("taken_over", [True, False])
async def test_a_frozen_writer_is_fenced_once_it_was_taken_over(store: Store, tmp_path: Path, taken_over: bool) -> None:
    outbox = await Outbox.open(store.url, name="coverage", clock=SystemClock())
    async with Child("freeze", store.url) as child:
        assert await child.line() == "ready"
        await stop(child, store, tmp_path)
        async with asyncio.timeout(30):
            while not await outbox.orphans():
                pass
        if taken_over:
            log = await outbox.take_over(stream_id(1))
            await log.append([ended(1, 2)])
        os.kill(child.process.pid, signal.SIGCONT)
        child.go()
        assert await child.line() == (Fenced.__name__ if taken_over else "appended")
    types = [one.type for one in await outbox.history(stream_id(1))]
    assert types == ["stt.speech_started", "stream.ended" if taken_over else "stt.speech_started"], (
        "a writer that was replaced must not append"
    )
    await outbox.aclose()
