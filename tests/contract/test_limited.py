"""What a limit of ``capture`` keeps from being heard is told by any job process, and counted by the relay."""

import asyncio

import pytest

from relay.app import service
from relay.app.job import Limited
from relay.app.service import FailureCounts
from relay.clock import instant
from relay.events.catalog import parse
from relay.events.envelope import RoomRef
from relay.events.operator import CaptureLimited
from relay.telemetry.metrics import Metrics
from tests.support.outbox.outbox_store import EPOCH_MS, Store, claim


class Room:
    name = "support-42"

    @property
    async def sid(self) -> str:
        return "RM_1"


async def test_it_is_told_by_every_job_process_on_one_stream_and_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "COUNT_EVERY_S", 0.01)
    relay, job, another_job = await store.open(), await store.open(name="job-1"), await store.open(name="job-2")
    await relay.lanes.sync_endpoints(["crm"])
    counts = FailureCounts(relay)
    counting = asyncio.create_task(counts.run())
    try:
        await asyncio.sleep(0)
        Limited(job, Room())("max_tracks_per_participant", 2, "PA_1")
        page = Metrics((), counts.metrics)
        await until_says(page, 'speech_relay_capture_limited_total{limit="max_tracks_per_participant"} 1.0')
        Limited(another_job, Room())("max_streams_per_room", 100, None)
        await until_says(page, 'speech_relay_capture_limited_total{limit="max_streams_per_room"} 1.0')
    finally:
        counting.cancel()
    (lane,) = await claim(relay.lanes, "crm")
    logged = [parse(one.body) for one in await relay.lanes.read(lane.stream, lane.cursor, 100)]
    told = [event for event in logged if isinstance(event, CaptureLimited)]
    assert [event.stream.sequence for event in told] == [1, 2]
    assert [(event.data.limit, event.data.maximum, event.data.participant_sid) for event in told] == [
        ("max_tracks_per_participant", 2, "PA_1"),
        ("max_streams_per_room", 100, None),
    ]
    assert {(event.data.room, event.timestamp) for event in told} == {
        (RoomRef(sid="RM_1", name="support-42"), instant(EPOCH_MS))
    }


async def until_says(page: Metrics, line: str) -> None:
    async with asyncio.timeout(30):
        while line not in page.page().decode():  # noqa: ASYNC110 - it is read, as a Prometheus does
            await asyncio.sleep(0.01)
