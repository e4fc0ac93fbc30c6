"""kill -9 of a dispatcher while it sends: nothing lost, nothing out of order, and only what was in flight twice.

Run as ``python -m tests.fault.test_dispatch_kill DATABASE RECEIVER`` this file is the dispatcher that dies.
"""

import asyncio
import signal
import sys
from itertools import pairwise

from relay.clock import SystemClock
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.http.transport import open_transport
from relay.outbox.outbox import Outbox
from tests.support.builders import endpoint, new_stream, run
from tests.support.dispatch.dispatching import per_stream
from tests.support.dispatch.receiver import Answer, Received, Receiver, receiving
from tests.support.outbox.outbox_store import Store

LANES, EVENTS, KILLS, CONCURRENCY = 32, 25, 4, 16


async def dispatch(database: str, receiver: str) -> None:
    clock = SystemClock()
    outbox = await Outbox.open(database, name="relay", clock=clock)
    target = endpoint(url=receiver, concurrency=CONCURRENCY)
    dispatcher = Dispatcher(outbox.lanes, [target], clock=clock, open_transport=open_transport)
    bell = outbox.listen(dispatcher.ring)
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: stopping.append(asyncio.create_task(dispatcher.stop(20)))
    )
    stopping: list[asyncio.Task[None]] = []
    await dispatcher.run()
    bell.close()
    await outbox.aclose()


async def start(database: str, receiver: Receiver) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fault.test_dispatch_kill", database, receiver.url
    )


async def test_kill_9_while_sending(either_store: Store) -> None:
    database = either_store.url
    outbox = await Outbox.open(database, name="producer", clock=SystemClock())
    await outbox.lanes.sync_endpoints(["crm"])
    for number in range(LANES):
        log = await outbox.open_stream(new_stream(number))
        await log.append(run(number, 1, EVENTS))
    async with receiving() as receiver:
        receiver.answer = slowly
        for kill in range(1, KILLS + 1):
            process = await start(database, receiver)
            try:
                await receiver.wait(kill * LANES * EVENTS // (KILLS + 2), within=30)
            finally:
                process.kill()
                await process.wait()
        process = await start(database, receiver)
        try:
            await receiver.wait_for(lambda: len({r.id for r in receiver.requests}) == LANES * EVENTS, within=60)
        finally:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    await outbox.aclose()
    came = per_stream(receiver.requests)
    assert len(came) == LANES, "every stream must arrive, whenever the dispatcher was killed"
    for sequences in came.values():
        assert (sequences[0], sequences[-1]) == (1, EVENTS), (
            "every event must arrive, whenever the dispatcher was killed"
        )
        assert all(after - before in (0, 1) for before, after in pairwise(sequences))
    # in flight, or delivered and not yet settled: at most one of each lane
    assert len(receiver.requests) - LANES * EVENTS <= KILLS * LANES, (
        "a kill may repeat at most the one event in flight of each stream"
    )


async def slowly(_: Received) -> Answer:
    return Answer(after=0.01)


if __name__ == "__main__":
    asyncio.run(dispatch(*sys.argv[1:]))
