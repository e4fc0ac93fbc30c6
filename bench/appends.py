"""(n) Appends per second to a log in PostgreSQL, by 1, 4 and 8 producers, beside bare inserts of the same rows.

A producer is a process with 25 streams; each stream's next append waits for the commit of the one before. The bare
ones insert the same rows into a table like ``events``, as many in a transaction as a producer has streams, which is the
most that a commit of the relay can combine; and, for comparison, one row in a transaction. The kinds alternate, and
each figure is the median of its rounds. CPU time is that of the producers and of the server.

``python -m bench.appends NUMBER`` is one such process, for all rounds: it takes longer to start than to append. A line
``KIND URL EVENTS`` on its standard input has it prepare a round and print ``ready``; the next one starts it, and it
prints how many seconds the round took, and how many of CPU time.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psycopg

from bench.cpu import server_cpu
from bench.workload import finals
from relay.clock import SystemClock
from relay.events.envelope import StreamEvent
from relay.ids import new_id
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream, Record, record
from tests.support.outbox.postgres import PostgresServer, running_server

PRODUCERS, STREAMS, EVENTS = (1, 4, 8), 25, 8_000
KINDS = ("relay", "bare", "single")
_SINGLE = 8
"""One row in a commit takes so long that fewer rows do."""
_BARE = "CREATE TABLE bare (LIKE events INCLUDING ALL)"
_INSERT = """
INSERT INTO bare (sid, sequence, id, type, delivery, utterance, revision, emitted_at, expires_at, body, closes)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""


async def measure(*, rounds: int = 3, events: int = EVENTS) -> None:
    print(
        f"\n(n) appends a second, {STREAMS} streams a producer, beside bare inserts of the same rows; medians of",
        rounds,
    )
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running_server(durable=True))
        every = [await stack.enter_async_context(_producer(number)) for number in range(max(PRODUCERS))]
        for producers in PRODUCERS:
            seen: dict[str, list[Round]] = {kind: [] for kind in KINDS}
            for _ in range(rounds):
                for kind in KINDS:
                    seen[kind].append(await _round(kind, server, every[:producers], events))
            rates = {kind: statistics.median(one.rate for one in those) for kind, those in seen.items()}
            print(
                f"    {producers} producer(s): {rates['relay']:6.0f}/s; bare, {STREAMS} rows a commit"
                f" {rates['bare']:6.0f}/s, ratio {rates['relay'] / rates['bare']:.2f}; bare, one row a commit"
                f" {rates['single']:6.0f}/s, ratio {rates['relay'] / rates['single']:.2f}; CPU of a row, client +"
                f" server, ms: {', '.join(_cpu(kind, those) for kind, those in seen.items())}",
                flush=True,
            )


@dataclass(frozen=True, slots=True)
class Round:
    rate: float
    client_ms: float
    """CPU of a row."""
    server_ms: float


def _cpu(kind: str, those: list[Round]) -> str:
    client, server = (
        statistics.median(each) for each in zip(*((r.client_ms, r.server_ms) for r in those), strict=True)
    )
    return f"{kind} {client:.3f} + {server:.3f}"


@asynccontextmanager
async def _producer(number: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.appends", str(number)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _round(
    kind: str, server: PostgresServer, producers: Sequence[asyncio.subprocess.Process], events: int
) -> Round:
    """One round, as slow as its slowest producer."""
    database = server.create()
    url = server.url(database)
    outbox = await Outbox.open(url, name="bench", clock=SystemClock())
    await outbox.lanes.sync_endpoints(["crm"])
    await outbox.aclose()
    server.execute(_BARE, database=database)
    share = _SINGLE if kind == "single" else 1
    each = events // share // len(producers) // STREAMS * STREAMS
    await _say(producers, f"{kind} {url} {each}")
    before = server_cpu(server)
    took = [line.split() for line in await _say(producers, "go")]
    await asyncio.sleep(0.5)  # a process of the server that ends is counted when the server has waited for it
    used, rows = server_cpu(server) - before, each * len(producers)
    server.drop(database)
    return Round(
        rate=rows / max(float(seconds) for seconds, _ in took),
        client_ms=sum(float(cpu) for _, cpu in took) * 1000 / rows,
        server_ms=used * 1000 / rows,
    )


async def _say(producers: Sequence[asyncio.subprocess.Process], line: str) -> list[str]:
    """Say a line to each; their answers."""
    for process in producers:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n".encode())
    return [(await process.stdout.readline()).decode() for process in producers if process.stdout is not None]


async def _append(url: str, events: int) -> str:
    outbox = await Outbox.open(url, name="producer", clock=SystemClock())
    logs = []
    for _ in range(STREAMS):
        stream = new_id("str")
        new = NewStream(id=stream, room_sid="RM_bench", room="bench", track_sid=stream, participant="p")
        logs.append(await outbox.open_stream(new))
    said = [(log, list(finals(log.id, events // STREAMS))) for log in logs]
    timed = await _begin()
    await asyncio.gather(*(_speak(log, those) for log, those in said))
    took = timed()
    await outbox.aclose()
    return took


async def _speak(log: StreamLog, said: list[StreamEvent]) -> None:
    for event in said:
        await log.append([event])


async def _insert(url: str, events: int, number: int, rows: int) -> str:
    # As an append does, it makes the records meanwhile.
    said = [(number * STREAMS + n, list(finals(new_id("str"), events // STREAMS))) for n in range(STREAMS)]
    with psycopg.connect(url) as connection:
        timed = await _begin()
        for turn in zip(*(those for _, those in said), strict=True):
            batch = [(sid, *_row(record(event))) for (sid, _), event in zip(said, turn, strict=True)]
            for start in range(0, len(batch), rows):
                with connection.cursor() as cursor:
                    cursor.executemany(_INSERT, batch[start : start + rows])
                connection.commit()
        return timed()


def _row(one: Record) -> tuple[object, ...]:
    return *one[:2], one.type, one.delivery.value, *one[4:]


async def _begin() -> Callable[[], str]:
    """Wait for the start; returns what tells the seconds since then, and those of CPU time."""
    print("ready", flush=True)
    await _line()
    began, used = time.perf_counter(), time.process_time()
    return lambda: f"{time.perf_counter() - began} {time.process_time() - used}"


async def _line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def main(number: int) -> None:
    while line := await _line():
        kind, url, events = line.split()
        if kind == "relay":
            took = await _append(url, int(events))
        else:
            took = await _insert(url, int(events), number, STREAMS if kind == "bare" else 1)
        print(took, flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
