"""What a limit of ``capture`` keeps from being heard is told, and counted, by any job process."""

import asyncio

from relay.app.job import Limited
from relay.clock import instant
from relay.events.catalog import parse
from relay.events.envelope import RoomRef
from relay.events.operator import CaptureLimited
from relay.outbox.outbox import Outbox
from relay.outbox.records import Lane
from relay.recording.metrics import CaptureMetrics
from relay.telemetry.metrics import Metrics
from tests.support.builders import EPOCH_MS
from tests.support.outbox.outbox_store import Store, claim


class Room:
    name = "support-42"

    @property
    async def sid(self) -> str:
        return "RM_1"


async def test_it_is_told_by_every_job_process_on_one_stream_and_counted(store: Store) -> None:
    relay, job, another_job = await store.open(), await store.open(name="job-1"), await store.open(name="job-2")
    await relay.lanes.sync_endpoints(["crm"])
    lanes: list[Lane] = []
    counts, other_counts = CaptureMetrics(), CaptureMetrics()
    Limited(job, Room(), counts)("max_tracks_per_participant", 2, "PA_1")
    await told_events(relay, lanes, 1)
    Limited(another_job, Room(), other_counts)("max_streams_per_room", 100, None)
    told = await told_events(relay, lanes, 2)
    assert 'limited_total{limit="max_tracks_per_participant"} 1.0' in (await Metrics(counts.families).scrape()).decode()
    assert 'limited_total{limit="max_streams_per_room"} 1.0' in (await Metrics(other_counts.families).scrape()).decode()
    assert [event.stream.sequence for event in told] == [1, 2]
    assert [(event.data.limit, event.data.maximum, event.data.participant_sid) for event in told] == [
        ("max_tracks_per_participant", 2, "PA_1"),
        ("max_streams_per_room", 100, None),
    ]
    assert {(event.data.room, event.timestamp) for event in told} == {
        (RoomRef(sid="RM_1", name="support-42"), instant(EPOCH_MS))
    }


async def told_events(relay: Outbox, lanes: list[Lane], count: int) -> list[CaptureLimited]:
    """The events of the stream about capture, once there are this many. ``lanes`` are those claimed so far."""
    async with asyncio.timeout(30):
        while True:
            lanes += await claim(relay.lanes, "crm")
            logged = [
                parse(one.body) for lane in lanes for one in await relay.lanes.read(lane.stream, lane.cursor, 100)
            ]
            told = [event for event in logged if isinstance(event, CaptureLimited)]
            if len(told) >= count:
                return told
            await asyncio.sleep(0.01)
