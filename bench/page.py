"""(m) The live page: append → painted, its memory over 100,000 events, and what it costs the dispatcher.

The first two run the page in Chromium on this machine. For the third, a process reads what an open page asks for; the
browser itself runs on the operator's machine. Its rounds alternate with others without a page: machines drift.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from playwright.async_api import Page

from bench.producer import producing_beside
from bench.receiver import Receiver
from bench.workload import Load, endpoint
from relay.api.appends import Appends
from relay.api.backend import Backend
from relay.api.routes.all import routers_of
from relay.api.server import HttpServer
from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.api import ListenAddress
from relay.config.endpoint import Endpoint
from relay.ids import new_id
from relay.outbox.operator.access import open_log
from relay.outbox.outbox import Outbox
from relay.outbox.records import Growth, NewStream
from tests.support.page import Voice, browsing, joins

SAMPLES = 300
EVENTS, PEOPLE, STEP = 100_000, 50, 25_000
LOAD = Load(32, 32, 24_000, producing=300)
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


async def measure(receiver: Receiver, *, rounds: int = 5) -> None:
    print("\n(m) live page")
    await _painted()
    await _memory()
    seen: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds):
        for with_page in seen:
            seen[with_page].append(await _throughput(receiver, f"page-{turn}-{int(with_page)}", with_page=with_page))
    without, beside = (statistics.median(rates) for rates in seen.values())
    print(f"    throughput: {without:.0f}/s without a page, {beside:.0f}/s with one, ratio {beside / without:.3f}")


@asynccontextmanager
async def _relay(folder: str, endpoints: list[Endpoint]) -> AsyncIterator[Relay]:
    """A log, and its page in this process, as in the service."""
    url, stop = f"sqlite:///{folder}/relay.db", asyncio.Event()
    outbox = await Outbox.open(url, name="bench", clock=CLOCK)
    try:
        await outbox.lanes.sync_endpoints([each.name for each in endpoints])
        async with open_log(url, CLOCK) as log:
            appends = Appends(stop)
            backend = Backend(log, lambda: endpoints, CLOCK, stop, appends)
            at = ListenAddress("api.listen", "127.0.0.1:0", (), api=True)
            server = HttpServer(at, {}, routers=routers_of(backend))
            await server.start()
            try:
                yield Relay(outbox, server.url, appends.ring)
            finally:
                stop.set()
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
            await _caught_up(page, voices)
            heap.append(await _heap(page))
        rate = EVENTS / (time.perf_counter() - began)
        longest = await page.evaluate("longest")
    said = ", ".join(f"{each / 1e6:.1f}" for each in heap)
    print(f"    memory after each {STEP:,} events of {PEOPLE} people: {said} MB; {rate:.0f}/s", end="")
    print(f", longest task {longest:.0f} ms")


async def _talk(voice: Voice, events: int) -> None:
    """Utterances of eight events each."""
    for n in range(events // 8):
        await voice.says(f"This is sentence number {n} of somebody who does not stop.", at=CLOCK.now_ms())
        await asyncio.sleep(0)


async def _caught_up(page: Page, voices: list[Voice]) -> None:
    """Until the page shows the last word of everyone."""
    texts = [f"Last words of {voice.identity} at {voice.log.last_sequence}." for voice in voices]
    for voice, text in zip(voices, texts, strict=True):
        await voice.says(text, at=CLOCK.now_ms())
    await page.locator(".line", has_text=texts[-1]).wait_for(timeout=120_000)


async def _heap(page: Page) -> float:
    """Bytes in use after a collection."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    used = await session.send("Runtime.getHeapUsage")
    await session.detach()
    return float(used["usedSize"])


async def _throughput(receiver: Receiver, name: str, *, with_page: bool) -> float:
    """Events per second that the dispatcher delivers."""
    target = endpoint(name, receiver.url(name), LOAD.concurrency)
    with tempfile.TemporaryDirectory() as folder:
        async with _relay(folder, [target]) as relay, AsyncExitStack() as stack:
            for _ in range(LOAD.lanes):
                stream = new_id("str")
                log = await relay.outbox.open_stream(NewStream(stream, "RM_bench", "bench", stream, "p"))
                await log.append(list(LOAD.finals(stream)))
            await producing_beside(stack, f"sqlite:///{folder}/relay.db", LOAD.producing)
            if with_page:
                await stack.enter_async_context(_reader(relay.url))
            began = time.perf_counter()
            dispatcher = await stack.enter_async_context(
                delivering(relay.outbox, [target], CLOCK, grace_s=1, also_ring=relay.ring)
            )
            delivered = dispatcher.metrics.deliveries
            while delivered.value(result="delivered") < LOAD.events:
                await asyncio.sleep(0.01)
            return delivered.value(result="delivered") / (time.perf_counter() - began)


@asynccontextmanager
async def _reader(url: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.page", url), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def _read(url: str) -> None:
    """Ask for what the view of a room asks for, for ever."""
    import aiohttp

    async with aiohttp.ClientSession(url) as session, session.get("/v1/events/stream") as events:

        async def lists() -> None:
            while True:
                for path in ("/v1/rooms", "/v1/about", "/readyz"):
                    async with session.get(path) as answer:
                        await answer.read()
                await asyncio.sleep(5)

        asking = asyncio.create_task(lists())
        async for _ in events.content.iter_any():
            print("reads", flush=True)
            break
        async for _ in events.content.iter_any():
            assert not asking.done()


if __name__ == "__main__":
    asyncio.run(_read(sys.argv[1]))
