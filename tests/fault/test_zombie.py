"""A dispatcher that stood still past its leases while another one took over: when it goes on, it changes nothing that
it no longer owns. Of a producer: test_outbox_processes.py; of a whole job: tests/live/test_service_killed.py."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from relay.outbox.sqlite.write_lock import WriteLock
from tests.support.builders import ended, new_stream, run
from tests.support.dispatch.dispatching import per_stream
from tests.support.dispatch.receiver import Answer, Received, Receiver, receiving
from tests.support.outbox.outbox_store import until
from tests.torture import dispatcher

LANES, EVENTS, CONCURRENCY = 24, 6, 8
LEASE_MS = 4500


@contextmanager
def started(database: Path, receiver: Receiver, name: str) -> Iterator[ForkServerProcess]:
    """A dispatcher of this name, killed at the end of the block if it is still there."""
    target = {
        "name": "crm",
        "url": receiver.url,
        "signing": "none",
        "events": ["*"],
        "timeout": "1s",
        "concurrency": CONCURRENCY,
        "retry": {"schedule": ["100ms"] * 200},
        "breaker": None,
    }
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["__main__", dispatcher.__name__])
    arguments = (str(database), [target], None, name, LEASE_MS)
    process = processes.Process(target=dispatcher.main, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join()


async def freeze(process: ForkServerProcess, lock: Path) -> None:
    """Not in the middle of a transaction, where nobody else could write either."""
    assert process.pid is not None
    turn = WriteLock(lock)
    with turn.taken():
        os.kill(process.pid, signal.SIGSTOP)
        status = Path(f"/proc/{process.pid}/stat")
        await until(lambda: status.read_text().rsplit(")", 1)[1].split()[0] == "T")
    turn.close()


async def stopped(process: ForkServerProcess) -> int | None:
    process.terminate()
    await asyncio.to_thread(process.join, 20)
    return process.exitcode


async def test_a_dispatcher_frozen_past_its_leases_settles_nothing_that_it_no_longer_owns(tmp_path: Path) -> None:
    database = tmp_path / "relay.db"
    outbox = await Outbox.open(f"sqlite:///{database}", name="producer", clock=SystemClock())
    await outbox.lanes.sync_endpoints(["crm"])
    logs = [await outbox.open_stream(new_stream(number)) for number in range(LANES)]
    for number, log in enumerate(logs):
        await log.append(run(number, 1, EVENTS))
    async with receiving() as receiver:
        answers = asyncio.Event()

        async def answer(_: Received) -> Answer:
            await answers.wait()
            return Answer(204)

        receiver.answer = answer
        with started(database, receiver, "zombie") as zombie:
            await receiver.wait(CONCURRENCY, within=20)
            await freeze(zombie, tmp_path / "relay.db.lock")
            in_flight = {request.id for request in receiver.requests}
            assert len(in_flight) == CONCURRENCY
            answers.set()  # they were taken, and nobody reads that they were
            with started(database, receiver, "heir") as heir:
                await receiver.wait_for(lambda: len(ids(receiver)) == LANES * EVENTS, within=30)
                await until_settled(outbox)
                before = cursors(database)
                assert zombie.pid is not None
                os.kill(zombie.pid, signal.SIGCONT)
                for number, log in enumerate(logs):
                    await log.append([ended(number, EVENTS + 1)])
                await receiver.wait_for(lambda: len(ids(receiver)) == LANES * (EVENTS + 1), within=30)
                await until_settled(outbox)
                assert await stopped(zombie) == 0
                assert await stopped(heir) == 0
        twice = [request.id for request in receiver.requests]
        for event in ids(receiver):
            twice.remove(event)
        assert sorted(twice) == sorted(in_flight), "each that was in flight once more, and nothing else"
        for sequences in per_stream(receiver.requests).values():
            assert sequences == sorted(sequences), "a frozen dispatcher must not send an older event after a newer one"
    after = cursors(database)
    assert set(before.values()) == {EVENTS}, "every stream must have all its events before the freeze"
    assert set(after.values()) == {EVENTS + 1}, "the other dispatcher must go on from where the frozen one was"
    await outbox.aclose()


def ids(receiver: Receiver) -> set[str]:
    return {request.id for request in receiver.requests}


def cursors(database: Path) -> dict[int, int]:
    with closing(sqlite3.connect(database)) as log:
        return dict(log.execute("SELECT lane, cursor FROM lanes").fetchall())


async def until_settled(outbox: Outbox) -> None:
    async with asyncio.timeout(20):
        while any((await outbox.lanes.unsettled()).values()):
            pass
