"""(a) Events per second through the durable outbox, beside the bare transport posting the same bodies.

Each round runs the bare transport before and after, and compares with their mean: a machine's speed drifts.
"""

import asyncio
import tempfile
import time
from collections import deque
from contextlib import AsyncExitStack

import httpx

from bench.producer import Producer
from bench.receiver import Receiver
from bench.workload import finals
from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.delivery import delivering
from relay.dispatch.aiohttp_transport import AiohttpTransport
from relay.dispatch.route import Route
from relay.dispatch.signing import new_secret
from relay.dispatch.transport import open_transport
from relay.ids import new_id
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream, Record, record


def endpoint(name: str, url: str, concurrency: int) -> Endpoint:
    return Endpoint.model_validate({"name": name, "url": url, "secret": new_secret(), "concurrency": concurrency})


def logs(lanes: int, events: int) -> list[list[Record]]:
    return [[record(event) for event in finals(new_id("str"), events // lanes)] for _ in range(lanes)]


async def bare(receiver: Receiver, lanes: int, events: int, concurrency: int, *, producing: float = 0) -> float:
    """Events per second of the transport alone: one in flight per lane, signed, nothing stored.

    With ``producing``, another process appends so many events a second to a log that nobody reads.
    """
    route = Route(endpoint("bare", receiver.url("bare"), concurrency))
    transport = open_transport(route.endpoint)
    ready: deque[deque[Record]] = deque(deque(lane) for lane in logs(lanes, events))

    async def work() -> None:
        while ready:
            lane = ready.popleft()
            one = lane.popleft()
            headers = route.headers(one, one.body, one.sequence - 1, time.time_ns() // 1_000_000)
            await transport.post(route.url, headers, one.body, route.timeout)
            if lane:
                ready.append(lane)

    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            await producing_beside(stack, f"sqlite:///{folder}/relay.db", producing)
            began = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(concurrency)))
            took = time.perf_counter() - began
    await transport.aclose()
    return events / took


async def durable(
    receiver: Receiver, url: str, name: str, lanes: int, events: int, concurrency: int, *, producing: float = 0
) -> float:
    """Events per second that the dispatcher drains from a log on disk, every settle committed before the next POST.

    ``producing`` is how many events a second another process appends meanwhile; they are delivered, and counted, too.
    """
    clock = SystemClock()
    outbox = await Outbox.open(url, name="bench", clock=clock)
    await outbox.lanes.sync_endpoints([name])
    for _ in range(lanes):
        stream = new_id("str")
        log = await outbox.open_stream(
            NewStream(id=stream, room_sid="RM_bench", room="bench", track_sid=stream, participant="p")
        )
        await log.append(list(finals(stream, events // lanes)))
    async with AsyncExitStack() as stack:
        await producing_beside(stack, url, producing)
        began = time.perf_counter()
        target = endpoint(name, receiver.url(name), concurrency)
        dispatcher = await stack.enter_async_context(delivering(outbox, [target], clock, grace_s=1))
        while dispatcher.stats.delivered < events:
            await asyncio.sleep(0.01)
        rate = dispatcher.stats.delivered / (time.perf_counter() - began)
    await outbox.aclose()
    stats = await receiver.wait_for(name, events, within=10)
    assert stats["disorder"] == 0, stats
    return rate


async def producing_beside(stack: AsyncExitStack, url: str, rate: float) -> None:
    """Have another process append to the log from now until the stack is left."""
    if rate:
        producer = await stack.enter_async_context(Producer(url, streams=10, events=1_000_000, rate=rate))
        stack.callback(producer.kill)
        await producer.go()


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


async def ratio(
    receiver: Receiver, url: str, name: str, lanes: int, concurrency: int, *, events: int, producing: float
) -> tuple[float, float]:
    """The durable rate, and the mean of the bare one before and after it."""
    before = await bare(receiver, lanes, events, concurrency, producing=producing)
    rate = await durable(receiver, url, name, lanes, events, concurrency, producing=producing)
    after = await bare(receiver, lanes, events, concurrency, producing=producing)
    return rate, (before + after) / 2


async def measure(receiver: Receiver, *, events: int = 24_000, rounds: int = 3) -> None:
    print("\n(a) throughput: durable outbox / bare transport, medians of", rounds)
    for lanes, concurrency, producing in ((32, 32, 0), (100, 32, 0), (100, 100, 0), (32, 32, 300), (100, 100, 300)):
        pairs = []
        for turn in range(rounds):
            name = f"durable-{lanes}-{concurrency}-{producing}-{turn}"
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{folder}/relay.db"
                pairs.append(await ratio(receiver, url, name, lanes, concurrency, events=events, producing=producing))
        pairs.sort(key=lambda pair: pair[0] / pair[1])
        rate, reference = pairs[rounds // 2]
        beside = f", {producing} appended a second meanwhile" if producing else ""
        print(
            f"    {lanes:>3} lanes, {concurrency:>3} at once{beside}: {rate:6.0f}/s durable, {reference:6.0f}/s bare,"
            f" ratio {rate / reference:.2f}"
        )
    comparison = await client(receiver, events // 2, 32)
    print(f"    for comparison, httpx.AsyncClient over the same transport: {comparison:.0f}/s")
