"""(n) Appends per second to a log in PostgreSQL, by 1, 4 and 8 producers, beside bare inserts of the same rows.

A producer is a process with 25 streams; each stream's next append waits for the commit of the one before. The bare
ones insert the same rows into a table like ``events``, as many in a transaction as a producer has streams, which is the
most that a commit of the relay can combine; and, for comparison, one row in a transaction. The kinds alternate, and
each figure is the median of its rounds.

``python -m bench.appends KIND URL EVENTS NUMBER`` is one such process. It prints ``ready``, starts at the first line on
its standard input, and prints how many seconds it took.
"""

import asyncio
import statistics
import sys
import time

import psycopg

from bench.workload import finals
from relay.clock import SystemClock
from relay.events.envelope import StreamEvent
from relay.ids import new_id
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream, Record, record
from tests.support.outbox.postgres import running_server

PRODUCERS, STREAMS, EVENTS = (1, 4, 8), 25, 8_000
KINDS = ("relay", "bare", "single")
_BARE = "CREATE TABLE bare (LIKE events INCLUDING ALL)"
_INSERT = """
INSERT INTO bare (sid, sequence, id, type, delivery, utterance, revision, emitted_at, expires_at, body, closes)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""


async def measure(*, rounds: int = 3, events: int = EVENTS) -> None:
    print(
        f"\n(n) appends a second, {STREAMS} streams a producer, beside bare inserts of the same rows; medians of",
        rounds,
    )
    with running_server(durable=True) as server:
        for producers in PRODUCERS:
            rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(rounds):
                for kind in KINDS:
                    database = server.create()
                    url = server.url(database)
                    outbox = await Outbox.open(url, name="bench", clock=SystemClock())
                    await outbox.lanes.sync_endpoints(["crm"])
                    await outbox.aclose()
                    server.execute(_BARE, database=database)
                    rates[kind].append(events / await _run(kind, url, producers, events // producers))
                    server.drop(database)
            relay, bare, single = (statistics.median(rates[kind]) for kind in KINDS)
            print(
                f"    {producers} producer(s): {relay:6.0f}/s; bare, {STREAMS} rows a commit {bare:6.0f}/s, ratio"
                f" {relay / bare:.2f}; bare, one row a commit {single:6.0f}/s, ratio {relay / single:.2f}",
                flush=True,
            )


async def _run(kind: str, url: str, producers: int, events: int) -> float:
    """The seconds of the slowest."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.appends", kind, url, str(events), str(number)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(producers)
    ]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()
    answers = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    return max(float(seconds) for seconds, _ in answers)


async def _append(url: str, events: int) -> float:
    outbox = await Outbox.open(url, name="producer", clock=SystemClock())
    logs = []
    for _ in range(STREAMS):
        stream = new_id("str")
        new = NewStream(id=stream, room_sid="RM_bench", room="bench", track_sid=stream, participant="p")
        logs.append(await outbox.open_stream(new))
    said = [(log, list(finals(log.id, events // STREAMS))) for log in logs]
    await _begin()
    began = time.perf_counter()
    await asyncio.gather(*(_speak(log, those) for log, those in said))
    took = time.perf_counter() - began
    await outbox.aclose()
    return took


async def _speak(log: StreamLog, said: list[StreamEvent]) -> None:
    for event in said:
        await log.append([event])


async def _insert(url: str, events: int, number: int, rows: int) -> float:
    # As an append does, it makes the records meanwhile.
    said = [(number * STREAMS + n, list(finals(new_id("str"), events // STREAMS))) for n in range(STREAMS)]
    with psycopg.connect(url) as connection:
        await _begin()
        began = time.perf_counter()
        for turn in zip(*(those for _, those in said), strict=True):
            batch = [(sid, *_row(record(event))) for (sid, _), event in zip(said, turn, strict=True)]
            for start in range(0, len(batch), rows):
                with connection.cursor() as cursor:
                    cursor.executemany(_INSERT, batch[start : start + rows])
                connection.commit()
        return time.perf_counter() - began


def _row(one: Record) -> tuple[object, ...]:
    return *one[:2], one.type, one.delivery.value, *one[4:]


async def _begin() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def main(kind: str, url: str, events: int, number: int) -> None:
    if kind == "relay":
        took = await _append(url, events)
    else:
        took = await _insert(url, events, number, STREAMS if kind == "bare" else 1)
    print(took, flush=True)


if __name__ == "__main__":
    how, where, count, which = sys.argv[1:]
    asyncio.run(main(how, where, int(count), int(which)))
