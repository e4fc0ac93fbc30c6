"""(l) Throughput to ten endpoints made over the API, alone and beside 9,990 that have nothing to do.

The two kinds of round alternate, and each kind's figure is the median of its rounds: a machine's speed drifts. A third
of the events is in the log at the start, the rest is appended meanwhile on streams that are opened meanwhile.
"""

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from ipaddress import ip_network

from bench.receiver import Receiver
from bench.workload import finals
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.api_endpoint import ApiEndpointOptions
from relay.dispatch.endpoint.directory import ApiEndpointDirectory
from relay.dispatch.signing import new_secret
from relay.ids import new_id
from relay.outbox.log.api_endpoints import NewApiEndpoint
from relay.outbox.log.audience import StreamAudience
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream

ACTIVE, IDLE = 10, 9_990
STREAMS, EVENTS = 120, 24_000


@dataclass(frozen=True, slots=True)
class Round:
    rate: float
    """Events per second."""
    open_ms: float
    """Median time to open a stream while events are sent."""


async def measure(receiver: Receiver, *, rounds: int = 3) -> None:
    print(f"\n(l) idle endpoints: {ACTIVE} active endpoints made over the API, alone and beside {IDLE} idle ones")
    seen: dict[int, list[Round]] = {0: [], IDLE: []}
    for turn in range(rounds):
        for idle in seen:
            seen[idle].append(await _run(receiver, f"idle-{turn}-{idle}", idle))
    rate = {idle: statistics.median(each.rate for each in those) for idle, those in seen.items()}
    opened = {idle: statistics.median(each.open_ms for each in those) for idle, those in seen.items()}
    print(
        f"    {rate[0]:.0f}/s alone, {rate[IDLE]:.0f}/s beside them, ratio {rate[IDLE] / rate[0]:.3f};"
        f" a stream opens in {opened[0]:.1f} and {opened[IDLE]:.1f} ms"
    )


async def _run(receiver: Receiver, name: str, idle: int) -> Round:
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        outbox = await Outbox.open(f"sqlite:///{folder}/relay.db", name="bench", clock=clock)
        made = [_endpoint(f"active-{n}", receiver.url(f"{name}/{n}"), f"active-{n}-*") for n in range(ACTIVE)]
        made += [_endpoint(f"idle-{n}", receiver.url("idle"), f"idle-{n}-*") for n in range(idle)]
        await asyncio.gather(*(outbox.api_endpoints.put(each, new_secret(), most=20_000) for each in made))
        early = STREAMS // 3
        for number in range(early):
            await _stream(outbox, number)
        async with delivering(outbox, [], clock, grace_s=1) as dispatcher:
            loopback = [ip_network("127.0.0.0/8")]
            directory = ApiEndpointDirectory(outbox.api_endpoints, allow=loopback, apply=dispatcher.revise)
            await directory.poll()
            delivered = dispatcher.metrics.deliveries
            while delivered.value(result="delivered") == 0:
                await asyncio.sleep(0.005)
            before, began = delivered.value(result="delivered"), time.perf_counter()
            opened = [await _stream(outbox, number) for number in range(early, STREAMS)]
            while delivered.value(result="delivered") < EVENTS:
                await asyncio.sleep(0.01)
            rate = (EVENTS - before) / (time.perf_counter() - began)
        await outbox.aclose()
    stats = await receiver.wait_for(name, EVENTS, within=10)
    assert stats["disorder"] == 0, stats
    return Round(rate, statistics.median(opened))


async def _stream(outbox: Outbox, number: int) -> float:
    """Open a stream and append its events; returns how many milliseconds the opening took."""
    stream, room = new_id("str"), f"active-{number % ACTIVE}-{number}"
    began = time.perf_counter()
    log = await outbox.open_stream(
        NewStream(id=stream, room_sid=f"RM_{room}", room=room, track_sid=stream, participant="p")
    )
    took = time.perf_counter() - began
    await log.append(list(finals(stream, EVENTS // STREAMS)))
    return took * 1000


def _endpoint(name: str, url: str, room: str) -> NewApiEndpoint:
    options = ApiEndpointOptions.model_validate({"url": url, "rooms": [room]})
    audience = StreamAudience(options.rooms, options.participants, ("*",), relay=False)
    return NewApiEndpoint(name, None, options.written(), audience, None)
