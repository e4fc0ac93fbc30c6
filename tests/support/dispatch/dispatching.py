"""A dispatcher, over the in-memory log or an outbox, that posts to a real receiver."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from relay.clock import SystemClock
from relay.config.endpoint import Endpoint, Retry
from relay.dispatch.clock_jump import Jump
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.http.transport import open_transport
from relay.outbox.outbox import Outbox
from tests.support import builders
from tests.support.dispatch.memory_lanes import MemoryLanes, MemoryLog, Row
from tests.support.dispatch.receiver import Received
from tests.support.outbox.outbox_store import HandClock

SOON = Retry(schedule=(timedelta(milliseconds=30),) * 20)


def endpoint(url: str, name: str = "crm", **settings: Any) -> Endpoint:
    """An endpoint that gets every event, and is retried after a moment."""
    return builders.endpoint(name, url=url, **{"retry": SOON, **settings})


@dataclass
class AFleet:
    """The dispatchers of a test, as each of them sees it."""

    process: str
    members: list[str]
    gone: list[str] = field(default_factory=list)

    def dispatchers(self) -> Sequence[str]:
        return sorted(self.members)

    def ended(self) -> Collection[str]:
        return self.gone


@asynccontextmanager
async def dispatching(
    log: MemoryLog, *endpoints: Endpoint, lanes: MemoryLanes | None = None, grace: float = 5, **settings: Any
) -> AsyncIterator[tuple[Dispatcher, MemoryLanes]]:
    """A running dispatcher, notified of every append; drained at the end."""
    lanes = lanes or MemoryLanes(log)
    dispatcher = Dispatcher(
        lanes, endpoints, **{"clock": log.clock, "open_transport": open_transport, "sweep_seconds": 0.1, **settings}
    )
    running = asyncio.create_task(dispatcher.run())
    await until(lambda: running.done() or {e.name for e in endpoints} <= set(log.endpoints))
    log.bells.append(dispatcher.ring)
    try:
        yield dispatcher, lanes
    finally:
        log.bells.remove(dispatcher.ring)
        await dispatcher.stop(grace)
        await running


@asynccontextmanager
async def delivering(outbox: Outbox, *endpoints: Endpoint, **settings: Any) -> AsyncIterator[Dispatcher]:
    """A running dispatcher of an outbox, in real time, which hears of what other processes append."""
    dispatcher = Dispatcher(outbox.lanes, endpoints, clock=SystemClock(), open_transport=open_transport, **settings)
    bell = outbox.listen(dispatcher.ring)
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        await dispatcher.stop(10)
        await running
        bell.close()


def set_at_next_look(clock: HandClock, by_ms: int, dispatcher: Dispatcher) -> None:
    """Set the clock just before this dispatcher looks at it.

    What is claimed between the clock's setting and the look is claimed by the new clock: a moment's work, which on a
    busy machine is longer.
    """
    jumps = dispatcher._maintenance._jumps
    poll = jumps.poll

    def look() -> Jump | None:
        jumps.poll = poll  # type: ignore[method-assign]
        clock.set_by += by_ms
        return poll()

    jumps.poll = look  # type: ignore[method-assign]


def counted(dispatcher: Dispatcher, result: str) -> float:
    """How many events have come to this result, at all endpoints."""
    return dispatcher.metrics.deliveries.value(result=result)


async def until(condition: Callable[[], bool], within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)


def per_stream(received: list[Received]) -> dict[str, list[int]]:
    """Stream → the sequences that arrived, in order."""
    came: dict[str, list[int]] = {}
    for request in received:
        stream = request.json()["stream"]
        came.setdefault(stream["id"], []).append(stream["sequence"])
    return came


def row(log: MemoryLog, stream: int = 1) -> Row:
    return next(r for r in log.rows if r.stream == stream)
