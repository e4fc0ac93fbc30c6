"""The sending half, started and stopped as one: dispatcher, doorbell and connections."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from relay.clock import Clock
from relay.config.models import Endpoint
from relay.dispatch.aiohttp_transport import AiohttpTransport
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.transport import HttpTransport
from relay.outbox.outbox import Outbox


@asynccontextmanager
async def delivering(
    outbox: Outbox, endpoints: Sequence[Endpoint], clock: Clock, *, grace_s: float
) -> AsyncIterator[Dispatcher]:
    """Deliver what the log holds while the body runs, then drain for at most ``grace_s`` seconds.

    A dispatcher that fails cancels the body; its error comes out as an ``ExceptionGroup``.
    """
    connections = AiohttpTransport()
    dispatcher = Dispatcher(outbox.lanes, endpoints, clock=clock, transport=HttpTransport(connections))
    doorbell = outbox.listen(dispatcher.ring)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.run(), name="dispatcher")
            try:
                yield dispatcher
            finally:
                await dispatcher.stop(grace_s)
    finally:
        doorbell.close()
        await connections.aclose()
