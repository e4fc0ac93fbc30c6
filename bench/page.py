"""(m) The live page: append → painted, its memory over 100,000 events, and what it costs the dispatcher.

The first two run the page in Chromium on this machine. For the third, a process reads what an open page asks for; the
browser itself runs on the operator's machine. It reads in every other slot of one run, and each slot is compared with
those beside it: machines drift.
"""

import asyncio
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain, islice
from urllib.parse import urlsplit

from playwright.async_api import Page

from bench.producer import producing_beside
from bench.receiver import Receiver
from bench.workload import Load, endpoint
from relay.api.appends import Appends
from relay.api.backend import Backend
from relay.api.routes.all import routers_of
from relay.api.server import HttpServer
from relay.app.delivery import delivering
from relay.app.fleet import Fleet
from relay.app.metrics import Backlogs, ServiceMetrics
from relay.clock import SystemClock
from relay.config.api import ListenAddress
from relay.config.endpoint import Endpoint
from relay.dispatch.metrics import DeliveryMetrics
from relay.ids import new_id
from relay.outbox.operator.access import open_log
from relay.outbox.outbox import Outbox
from relay.outbox.records import Growth, NewStream
from relay.telemetry.metrics import Metrics
from tests.support.page import Voice, browsing, joins

SAMPLES = 200
EVENTS, PEOPLE, STEP = 100_000, 50, 20_000
BATCH = 4
"""Utterances of a participant that are appended at once."""
LOAD = Load(32, 32, 160_000, producing=300)
SLOT_S = 1.5
SETTLE_S = 0.3
"""Before a slot: opening a page is not what is measured."""
POLL_S = 5.0
"""Between two requests for the lists of an open page."""
CLOCK = SystemClock()

# Notes when each new text of the newest line was painted: a message is handled after the frame that was requested.
_WATCH = """
window.painted = new Map(); window.longest = 0;
const channel = new MessageChannel(), waiting = [];
channel.port1.onmessage = () => {
  for (const text of waiting.splice(0)) painted.set(text, performance.timeOrigin + performance.now());
};
new MutationObserver(() => {
  const text = document.querySelector('.line:last-child i')?.textContent;
  if (!text || painted.has(text) || waiting.includes(text)) return;
  waiting.push(text);
  requestAnimationFrame(() => channel.port2.postMessage(0));
}).observe(document, {subtree: true, childList: true, characterData: true});
new PerformanceObserver((list) => { for (const each of list.getEntries()) longest = Math.max(longest, each.duration); })
  .observe({type: 'longtask'});
"""


@dataclass(frozen=True, slots=True)
class Relay:
    outbox: Outbox
    url: str
    """Of the page."""
    ring: Callable[[Growth], None]
    delivery: DeliveryMetrics


async def measure(receiver: Receiver) -> None:
    print("\n(m) live page")
    await _painted()
    await _memory()
    slots = await _throughput(receiver)
    for what, rates in (("second", [each.rate for each in slots]), ("CPU second", [each.per_cpu_s for each in slots])):
        ratios = sorted(_ratios(rates))
        print(
            f"    deliveries a {what}: {statistics.median(rates[::2]):.0f} without a page; with one, ratio "
            f"{statistics.median(ratios):.3f} (median of {len(ratios)} slots, {ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


def _ratios(rates: list[float]) -> list[float]:
    """Of each slot with a page, to the mean of those before and after it."""
    return [rates[n] / ((rates[n - 1] + rates[n + 1]) / 2) for n in range(1, len(rates) - 1, 2)]


@asynccontextmanager
async def _relay(folder: str, endpoints: list[Endpoint]) -> AsyncIterator[Relay]:
    """A log, and its page in this process, as in the service."""
    url, stop = f"sqlite:///{folder}/relay.db", asyncio.Event()
    outbox = await Outbox.open(url, name="bench", clock=CLOCK)
    try:
        await outbox.lanes.sync_endpoints([each.name for each in endpoints])
        async with open_log(url, CLOCK) as log:
            appends, metrics = Appends(stop), ServiceMetrics()
            backlogs = Backlogs(log, lambda: endpoints, metrics.delivery, CLOCK)
            families = metrics.families(None, backlogs, url, Fleet(outbox, CLOCK, "bench")).values()
            scraped = Metrics(chain.from_iterable(families), refresh=backlogs.refresh)
            backend = Backend(log, lambda: endpoints, CLOCK, stop, appends)
            at = ListenAddress("api.listen", "127.0.0.1:0", (), api=True)
            server = HttpServer(at, {}, scraped, routers_of(backend))
            await server.start()
            try:
                yield Relay(outbox, server.url, appends.ring, metrics.delivery)
            finally:
                stop.set()
                await backlogs.aclose()
                await server.stop()
    finally:
        await outbox.aclose()


@asynccontextmanager
async def _shown(room: str) -> AsyncIterator[tuple[Relay, Page]]:
    with tempfile.TemporaryDirectory() as folder:
        async with _relay(folder, []) as relay:
            doorbell = relay.outbox.listen(relay.ring)
            try:
                async with browsing(f"{relay.url}/#/rooms/{room}", script=_WATCH) as page:
                    await page.locator(".connection", has_text="Live").wait_for()
                    yield relay, page
            finally:
                doorbell.close()


async def _painted() -> None:
    async with _shown("bench") as (relay, page):
        voice = await joins(relay.outbox, "bench", "alice")
        speaking = await voice.begins()
        appended: dict[str, float] = {}
        for n in range(SAMPLES):
            text = f"word {n}"
            appended[text] = time.time() * 1000
            await speaking.guesses(text)
            await asyncio.sleep(0.1)  # ten interims a second, as no one speaks faster
        await asyncio.sleep(1)
        painted = dict(await page.evaluate("[...painted]"))
    took = sorted(painted[text] - at for text, at in appended.items() if text in painted)
    p50, p95 = took[len(took) // 2], took[int(len(took) * 0.95)]
    print(f"    append → painted: p50 {p50:.0f} ms, p95 {p95:.0f} ms ({len(took)} of {SAMPLES} interims)")


async def _memory() -> None:
    async with _shown("bench") as (relay, page):
        voices = [await joins(relay.outbox, "bench", f"person-{n}") for n in range(PEOPLE)]
        heap = [await _heap(page)]
        began = time.perf_counter()
        for _ in range(EVENTS // STEP):
            await asyncio.gather(*(_talk(voice, STEP // PEOPLE) for voice in voices))
            await _caught_up(page, voices[-1])
            heap.append(await _heap(page))
        rate = EVENTS / (time.perf_counter() - began)
        longest = await page.evaluate("longest")
    said = ", ".join(f"{each / 1e6:.1f}" for each in heap)
    print(f"    memory after each {STEP:,} events of {PEOPLE} people: {said} MB; {rate:.0f}/s", end="")
    print(f", longest task {longest:.0f} ms")


async def _talk(voice: Voice, events: int) -> None:
    """Utterances of eight events each."""
    text = "This is what a person says who does not stop."
    for _ in range(events // 8 // BATCH):
        async with voice.together():
            for _ in range(BATCH):
                await voice.says(text, at=CLOCK.now_ms())


async def _caught_up(page: Page, voice: Voice) -> None:
    """Until the page shows the last word of it."""
    text = f"Last words at {voice.log.last_sequence}."
    await voice.says(text, at=CLOCK.now_ms())
    await page.locator(".line", has_text=text).wait_for(timeout=120_000)


async def _heap(page: Page) -> float:
    """Bytes in use after a collection."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    used = await session.send("Runtime.getHeapUsage")
    await session.detach()
    return float(used["usedSize"])


@dataclass(frozen=True, slots=True)
class Slot:
    """What the dispatcher delivered."""

    rate: float
    """Events a second."""
    per_cpu_s: float
    """Events a second of CPU of this process: what other loads of the machine do not change."""


async def _throughput(receiver: Receiver) -> list[Slot]:
    """Slots without a page and with one, in turns."""
    name = "page"
    target = endpoint(name, receiver.url(name), LOAD.concurrency)
    with tempfile.TemporaryDirectory() as folder:
        async with _relay(folder, [target]) as relay, AsyncExitStack() as stack:
            for _ in range(LOAD.lanes):
                stream = new_id("str")
                log = await relay.outbox.open_stream(NewStream(stream, "RM_bench", "bench", stream, "p"))
                finals = LOAD.finals(stream)
                while batch := list(islice(finals, 500)):
                    await log.append(batch)
            await producing_beside(stack, f"sqlite:///{folder}/relay.db", LOAD.producing)
            reader = await stack.enter_async_context(_reader(relay.url))
            dispatcher = await stack.enter_async_context(
                delivering(relay.outbox, [target], CLOCK, grace_s=1, also_ring=relay.ring, metrics=relay.delivery)
            )
            delivered = dispatcher.metrics.deliveries
            slots: list[Slot] = []
            while True:
                await reader.turn(reads=len(slots) % 2 == 1)
                await asyncio.sleep(SETTLE_S)
                began, cpu, before = time.perf_counter(), time.process_time(), delivered.value(result="delivered")
                await asyncio.sleep(SLOT_S)
                after = delivered.value(result="delivered")
                if after >= LOAD.events:
                    return slots
                events = after - before
                slots.append(Slot(events / (time.perf_counter() - began), events / (time.process_time() - cpu)))


@dataclass(frozen=True, slots=True)
class Reader:
    """A process that asks for what the view of a room asks for, in turns."""

    process: asyncio.subprocess.Process

    async def turn(self, *, reads: bool) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"on\n" if reads else b"off\n")
        await self.process.stdout.readline()


@asynccontextmanager
async def _reader(url: str) -> AsyncIterator[Reader]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.page", url), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Reader(process)
    finally:
        process.kill()
        await process.wait()


def _read(url: str) -> None:
    """Read the stream, and every five seconds of it what the view of a room asks for, and the metrics."""
    at, feed, due = urlsplit(url), None, 0.0

    def get(path: str) -> socket.socket:
        asked = socket.create_connection((at.hostname or "", at.port or 80))
        asked.sendall(f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n".encode())
        return asked

    while True:
        ready, _, _ = select.select([sys.stdin, *([feed] if feed else [])], [], [], 0.5)
        if sys.stdin in ready:
            wanted = sys.stdin.readline().strip()
            if feed:
                feed.close()
            feed = get("/v1/events/stream") if wanted == "on" else None
            if feed:
                feed.recv(1 << 20)
            print(wanted, flush=True)
        elif feed in ready and feed:
            feed.recv(1 << 20)
        if feed and time.monotonic() >= due:
            due = time.monotonic() + 2 * POLL_S  # half of the time it does not read
            for path in ("/v1/rooms?limit=50", "/readyz", "/metrics"):
                with get(path) as asked:
                    while asked.recv(1 << 20):
                        pass


if __name__ == "__main__":
    _read(sys.argv[1])
