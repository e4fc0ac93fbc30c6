"""(f) The same throughput with a large log: a million events that a disabled endpoint has not received, and 100,000
idle lanes."""

import statistics
import tempfile

import sqlalchemy as sa

from bench.receiver import Receiver
from bench.throughput import compare
from bench.workload import Load, finals
from relay.clock import SystemClock
from relay.ids import new_id
from relay.outbox import schema
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream

BACKLOG, IDLE = 1_000_000, 100_000
_STREAMS, _STEP = 100, 1000


async def measure(receiver: Receiver, *, events: int = 12_000, rounds: int = 3) -> None:
    print(f"\n(f) throughput beside {BACKLOG:,} events for a disabled endpoint and {IDLE:,} idle lanes; 300/s appended")
    with tempfile.TemporaryDirectory() as folder:
        large = f"sqlite:///{folder}/relay.db"
        await _fill(large)
        for load in (Load(32, 32, events, producing=300), Load(100, 100, events, producing=300)):
            small_log, large_log = [], []
            for turn in range(rounds):
                name = f"backlog-{load.lanes}-{turn}"
                with tempfile.TemporaryDirectory() as empty:
                    rates = await compare(receiver, f"sqlite:///{empty}/relay.db", f"{name}-0", load)
                small_log.append(rates.beside_own)
                rates = await compare(receiver, large, f"{name}-1", load)
                large_log.append(rates.beside_own)
            without, beside = statistics.median(small_log), statistics.median(large_log)
            print(
                f"    {load}: ratio {without:.2f} with a small log, {beside:.2f} with the large one:"
                f" {beside / without:.2f}"
            )


async def _fill(url: str) -> None:
    """A log after a week in which one of two endpoints was disabled."""
    outbox = await Outbox.open(url, name="filling", clock=SystemClock())
    await outbox.lanes.sync_endpoints(["disabled"])
    await outbox.lanes.disable("disabled", "operator")
    for _ in range(_STREAMS):
        stream = new_id("str")
        log = await outbox.open_stream(NewStream(stream, "RM_bench", "bench", stream, "p"))
        for after in range(0, BACKLOG // _STREAMS, _STEP):
            await log.append(list(finals(stream, _STEP, after=after)))
    await outbox.aclose()
    _add_idle_lanes(url)


def _add_idle_lanes(url: str) -> None:
    """Add closed, completely sent streams: no outbox operation creates this many at once."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        first = 10_000_000
        streams = [
            {
                "sid": first + n,
                "id": new_id("str"),
                "room_sid": "RM_old",
                "room": "old",
                "track_sid": f"TR_{n}",
                "participant": "p",
                "last_sequence": 10,
                "writer": "",
                "writer_fence": 1,
                "opened_at": 1,
                "closed_at": 2,
            }
            for n in range(IDLE)
        ]
        connection.execute(sa.insert(schema.streams), streams)
        lanes = [
            {
                "endpoint": "disabled",
                "sid": first + n,
                "cursor": 10,
                "last_sent": 10,
                "attempts": 0,
                "fence": 1,
                "settled_at": 2,
            }
            for n in range(IDLE)
        ]
        connection.execute(sa.insert(schema.lanes), lanes)
    engine.dispose()
