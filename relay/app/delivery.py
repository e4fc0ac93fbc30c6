"""Starts and stops delivery as one unit: dispatcher, doorbell and connections; and tunes Python for it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from relay.clock import Clock
from relay.config.endpoint import Endpoint
from relay.dispatch.delivery.worker import AttemptTraces
from relay.dispatch.dispatcher import CONCURRENCY, Dispatcher
from relay.dispatch.http.transport import open_transport
from relay.dispatch.metrics import DeliveryMetrics
from relay.dispatch.share import DispatcherFleet
from relay.outbox.outbox import Outbox
from relay.outbox.records import Growth


@asynccontextmanager
async def delivering(
    outbox: Outbox,
    endpoints: Sequence[Endpoint],
    clock: Clock,
    *,
    grace_s: float,
    concurrency: int = CONCURRENCY,
    also_ring: Callable[[Growth], None] | None = None,
    metrics: DeliveryMetrics | None = None,
    traces: AttemptTraces | None = None,
    fleet: DispatcherFleet | None = None,
) -> AsyncIterator[Dispatcher]:
    """Deliver the log's events while the body runs, then drain for at most ``grace_s`` seconds.

    At most ``concurrency`` requests are in flight at once. ``also_ring`` is called too when the log has grown: a second
    doorbell would cost every append a datagram. ``fleet``: the processes that share the log, if it may have several. A
    dispatcher that fails cancels the body; its error is raised as an ``ExceptionGroup``.
    """
    dispatcher = Dispatcher(
        outbox.lanes,
        endpoints,
        clock=clock,
        open_transport=open_transport,
        concurrency=concurrency,
        metrics=metrics,
        traces=traces,
        fleet=fleet,
    )

    def ring(growth: Growth) -> None:
        dispatcher.ring(growth)
        if also_ring is not None:
            also_ring(growth)

    doorbell = outbox.listen(ring)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.run(), name="dispatcher")
            try:
                yield dispatcher
            finally:
                await dispatcher.stop(grace_s)
    finally:
        doorbell.close()


THRESHOLD = 10_000
"""New objects that trigger a collection: more than a few hundred POSTs in flight hold."""


def collect_rarely() -> None:
    """Exempt existing objects from collection, and collect after ``THRESHOLD`` new ones. For the whole process.

    Call it once, when everything is imported. Nothing is collected first: that takes 0.2 s of the start, and finds two
    thousand of 300,000 objects.

    Every POST in flight holds some fifty objects that the collector counts.
    Lanes that are answered by the same commit continue together, and with the default threshold of 700 each such wave
    triggers a useless collection: the objects are freed without it. Measured, that costs 10 of 150 µs per event, and
    another 25 in full collections, which walk everything that was ever imported and stop the process for 60 ms or more.
    """
    gc.freeze()
    gc.set_threshold(THRESHOLD, *gc.get_threshold()[1:])
