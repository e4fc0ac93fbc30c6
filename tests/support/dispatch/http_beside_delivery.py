"""Runs a process with an HTTP port, a dispatcher and a given descriptor limit.

Arguments: the database, the receiver's URL, the limit. Prints the HTTP port; appends an event for each line it reads.
"""

import asyncio
import resource
import sys

import uvloop

from relay.api.server import HttpServer
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.api import ListenAddress
from relay.config.endpoint import Endpoint
from relay.outbox.outbox import Outbox
from relay.telemetry.metrics import Gauge, Metrics
from tests.support.builders import durable, new_stream
from tests.support.cli import SECRET


async def main(url: str, receiver: str, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    clock = SystemClock()
    outbox = await Outbox.open(url, name="relay", clock=clock)
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    endpoint = Endpoint.model_validate({"name": "crm", "url": receiver, "secret": SECRET, "events": ["*"]})
    server = HttpServer(
        ListenAddress("api.listen", "127.0.0.1:0", (), api=False),
        {},
        Metrics([Gauge("rooms_heard", "Rooms.", lambda: 1)]),
    )
    await server.start()
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    async with delivering(outbox, [endpoint], clock, grace_s=5):
        sequence = 0
        while await asyncio.to_thread(sys.stdin.readline):
            sequence += 1
            await log.append([durable(1, sequence, at=clock.now_ms())])
    await server.stop()
    await outbox.aclose()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
