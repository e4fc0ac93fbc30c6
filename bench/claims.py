"""(o) The cost of a claim in PostgreSQL beside 10, 10,000 and 1,000,000 idle lanes.

Ten lanes become due, are claimed and released again, on each of three logs by turns.
"""

import asyncio
import statistics
import time

from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream
from tests.support.outbox.postgres import running_server

IDLE, DUE = (10, 10_000, 1_000_000), 10
_STREAMS = """
INSERT INTO streams (sid, id, room_sid, room, track_sid, participant, last_sequence, writer, writer_fence, opened_at,
    closed_at)
SELECT 1000 + n, 'str_' || n, 'RM_old', 'old', 'TR_' || n, 'p', 10, '', 1, 1, 2 FROM generate_series(1, {idle}) n"""
_LANES = """
INSERT INTO lanes (endpoint, sid, cursor, last_sent, attempts, fence, settled_at)
SELECT 'crm', 1000 + n, 10, 10, 0, 1, 2 FROM generate_series(1, {idle}) n"""
_MAKE_DUE = "UPDATE lanes SET next_at = 1 WHERE sid < 1000"


async def measure(*, turns: int = 300) -> None:
    print(f"\n(o) claiming and releasing {DUE} lanes beside idle ones, medians of {turns}, alternating")
    took: dict[int, list[tuple[float, float]]] = {idle: [] for idle in IDLE}
    with running_server(durable=True) as server:
        logs = {}
        for idle in IDLE:
            database = server.create()
            outbox = await Outbox.open(server.url(database), name="bench", clock=SystemClock())
            await outbox.lanes.sync_endpoints(["crm"])
            for number in range(DUE):
                await outbox.open_stream(NewStream(f"str_due_{number}", "RM_bench", "bench", f"TR_due_{number}", "p"))
            server.execute(_STREAMS.format(idle=idle), database=database)
            server.execute(_LANES.format(idle=idle), database=database)
            server.execute("VACUUM ANALYZE", database=database)
            logs[idle] = database, outbox
        for _ in range(turns):
            for idle, (database, outbox) in logs.items():
                await asyncio.to_thread(server.execute, _MAKE_DUE, database=database)
                began = time.perf_counter()
                claimed = await outbox.lanes.claim({"crm": 100}, lease_ms=60_000)
                between = time.perf_counter()
                await outbox.lanes.release([(lane.id, lane.fence) for lane in claimed])
                assert len(claimed) == DUE, len(claimed)
                took[idle].append((between - began, time.perf_counter() - between))
        for _, outbox in logs.values():
            await outbox.aclose()
    first = statistics.median(claim for claim, _ in took[IDLE[0]])
    for idle, those in took.items():
        claim, release = (statistics.median(one) * 1000 for one in zip(*those, strict=True))
        print(
            f"    {idle:>9,} idle: claim {claim:.2f} ms, {claim / first / 1000:.2f} of that beside {IDLE[0]}; release"
            f" {release:.2f} ms",
            flush=True,
        )
