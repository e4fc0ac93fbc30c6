"""(a) Events per second through the durable outbox, beside the bare transport posting the same bodies.

Each round runs the bare transport before and after, and compares with their mean: a machine's speed drifts.
"""

import asyncio
import tempfile
import time
from collections import deque

import httpx

from bench.receiver import Receiver
from bench.workload import finals
from relay.clock import SystemClock
from relay.config.models import Endpoint
from relay.delivery import delivering
from relay.dispatch.aiohttp_transport import AiohttpTransport
from relay.dispatch.route import Route
from relay.dispatch.signing import new_secret
from relay.dispatch.transport import HttpTransport
from relay.ids import new_id
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream, Record, record


def endpoint(name: str, url: str, concurrency: int) -> Endpoint:
    return Endpoint.model_validate({"name": name, "url": url, "secret": new_secret(), "concurrency": concurrency})


def logs(lanes: int, events: int) -> list[list[Record]]:
    return [[record(event) for event in finals(new_id("str"), events // lanes)] for _ in range(lanes)]


async def bare(receiver: Receiver, lanes: int, events: int, concurrency: int) -> float:
    """Events per second of the transport alone: one in flight per lane, signed, nothing stored."""
    route = Route(endpoint("bare", receiver.url("bare"), concurrency))
    connections = AiohttpTransport()
    transport = HttpTransport(connections)
    ready: deque[deque[Record]] = deque(deque(lane) for lane in logs(lanes, events))

    async def work() -> None:
        while ready:
            lane = ready.popleft()
            one = lane.popleft()
            headers = route.headers(one, one.body, one.sequence - 1, time.time_ns() // 1_000_000)
            await transport.post(route.url, headers, one.body, route.timeout)
            if lane:
                ready.append(lane)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    took = time.perf_counter() - began
    await connections.aclose()
    return events / took


async def durable(receiver: Receiver, name: str, lanes: int, events: int, concurrency: int) -> float:
    """Events per second that the dispatcher drains from a log on disk, every settle committed before the next POST."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        outbox = await Outbox.open(f"sqlite:///{folder}/relay.db", name="bench", clock=clock)
        await outbox.lanes.sync_endpoints([name])
        for _ in range(lanes):
            stream = new_id("str")
            log = await outbox.open_stream(
                NewStream(id=stream, room_sid="RM_bench", room="bench", track_sid=stream, participant="p")
            )
            await log.append(list(finals(stream, events // lanes)))
        began = time.perf_counter()
        target = endpoint(name, receiver.url(name), concurrency)
        async with delivering(outbox, [target], clock, grace_s=1) as dispatcher:
            while dispatcher.stats.delivered < events:
                await asyncio.sleep(0.01)
            took = time.perf_counter() - began
        await outbox.aclose()
    stats = await receiver.wait_for(name, events, within=10)
    assert stats["disorder"] == 0, stats
    return events / took


async def client(receiver: Receiver, events: int, concurrency: int) -> float:
    """Events per second of ``httpx.AsyncClient`` over the same transport: why the client is left out."""
    bodies = deque(one.body for lane in logs(concurrency, events) for one in lane)
    async with httpx.AsyncClient(transport=AiohttpTransport(), trust_env=False) as http:

        async def work() -> None:
            while bodies:
                await http.post(receiver.url("client"), content=bodies.popleft())

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(concurrency)))
    return events / (time.perf_counter() - began)


async def measure(receiver: Receiver, *, events: int = 12_000, rounds: int = 3) -> None:
    print("\n(a) throughput: durable outbox / bare transport, medians of", rounds)
    for lanes, concurrency in ((32, 32), (100, 32), (100, 100)):
        pairs = []
        for turn in range(rounds):
            before = await bare(receiver, lanes, events, concurrency)
            rate = await durable(receiver, f"durable-{lanes}-{concurrency}-{turn}", lanes, events, concurrency)
            after = await bare(receiver, lanes, events, concurrency)
            pairs.append((rate, (before + after) / 2))
        pairs.sort(key=lambda pair: pair[0] / pair[1])
        rate, reference = pairs[rounds // 2]
        print(
            f"    {lanes:>3} lanes, {concurrency:>3} at once: {rate:6.0f}/s durable, {reference:6.0f}/s bare,"
            f" ratio {rate / reference:.2f}"
        )
    comparison = await client(receiver, events // 2, 32)
    print(f"    for comparison, httpx.AsyncClient over the same transport: {comparison:.0f}/s")
