"""The process that appends while the dispatcher is killed."""

import asyncio
import random
from multiprocessing.connection import Connection

from relay.clock import SystemClock
from relay.events.envelope import StreamEvent
from relay.outbox.outbox import Outbox
from tests.support.builders import durable, ended, interim, new_stream
from tests.torture.size import Size

INTERIMS = 0.3
"""How many there are for each durable event, on average."""


def main(database: str, size: Size, acknowledged: Connection) -> None:
    """Append every event, spread over the time; then send how many were committed of each stream, and end."""
    acknowledged.send(asyncio.run(_produce(database, size)))


async def _produce(database: str, size: Size) -> dict[str, int]:
    clock, dice = SystemClock(), random.Random(size.seed)
    outbox = await Outbox.open(f"sqlite:///{database}", name="producer", clock=clock)
    committed: dict[str, int] = {}

    async def speak(number: int) -> None:
        log = await outbox.open_stream(new_stream(number))
        count = size.events // size.streams
        for _ in range(count - 1):
            await asyncio.sleep(dice.uniform(0, 2 * size.seconds / count))
            events: list[StreamEvent] = []
            if dice.random() < INTERIMS:
                sequence = log.last_sequence + 1
                events.append(interim(number, sequence, revision=sequence, at=clock.now_ms()))
            events.append(durable(number, log.last_sequence + len(events) + 1, at=clock.now_ms()))
            await log.append(events)
            committed[log.id] = log.last_sequence
        await log.append([ended(number, log.last_sequence + 1, at=clock.now_ms())])
        committed[log.id] = log.last_sequence

    async with asyncio.TaskGroup() as group:
        for number in range(1, size.streams + 1):
            group.create_task(speak(number))
    await outbox.aclose()
    return committed
