"""The dispatcher over the real outbox: what the twin in memory promises, each database keeps."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.clock import SystemClock
from relay.config.endpoint import Retry
from relay.ids import event_id
from relay.outbox.log import batching
from relay.outbox.operator.access import open_log
from tests.support.builders import durable, ended, endpoint, interim, new_stream, run, stream_id
from tests.support.dispatch.dispatching import counted, delivering, per_stream
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_store import Store, sqlite, until

CLOCK = SystemClock()


@pytest.fixture
def store(store: Store) -> Store:
    store.clock = CLOCK  # type: ignore[assignment]  # real time: what is due is due
    return store


async def test_what_another_connection_appends_arrives_by_its_ring(store: Store, receiver: Receiver) -> None:
    async with delivering(await store.open(), endpoint(url=receiver.url)) as dispatcher:
        await asyncio.sleep(0)
        producer = await store.open("producer")
        await producer.lanes.sync_endpoints(["crm"])
        logs = [await producer.open_stream(new_stream(number)) for number in range(1, 21)]
        for turn in range(10):
            for number, log in enumerate(logs, 1):
                await log.append(run(number, turn + 1, turn + 1))
        await receiver.wait(200)
        assert dispatcher.metrics.rings_lost.value() == 0
    assert [r.headers["relay-previous-sequence"] for r in receiver.requests].count("0") == 20
    assert all(sequences == list(range(1, 11)) for sequences in per_stream(receiver.requests).values()), (
        "every stream must arrive complete and in order"
    )


async def test_the_next_event_of_a_lane_never_waits_to_share_a_settlement(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "GATHER", 3600)
    outbox = await store.open()
    async with delivering(outbox, endpoint(url=receiver.url), sweep_seconds=3600) as dispatcher:
        producer = await store.open("producer")
        await producer.lanes.sync_endpoints(["crm"])
        log = await producer.open_stream(new_stream(1))
        for turn in range(1, 4):
            await log.append(run(1, turn, turn))
            await receiver.wait(turn)
            await until(lambda turn=turn: counted(dispatcher, "delivered") == turn)  # type: ignore[misc] # and not settled yet
        assert await outbox.lanes.unsettled() == {"crm": 1}
        receiver.answer = lambda _: Answer(after=0.3)
        await log.append(run(1, 4, 4))
        await receiver.wait(4)
        async with asyncio.timeout(5):  # nor does a stop wait, for what is still under way
            await dispatcher.stop(10)
        assert await outbox.lanes.unsettled() == {"crm": 0}


async def test_a_stop_commits_at_once_what_was_delivered_before_it(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "GATHER", 3600)
    outbox = await store.open()
    async with delivering(outbox, endpoint(url=receiver.url), sweep_seconds=3600) as dispatcher:
        producer = await store.open("producer")
        await producer.lanes.sync_endpoints(["crm"])
        log = await producer.open_stream(new_stream(1))
        await log.append(run(1, 1, 1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
        async with asyncio.timeout(60):
            await dispatcher.stop(3600)
        assert await outbox.lanes.unsettled() == {"crm": 0}


async def test_two_dispatchers_share_the_lanes_and_double_nothing(store: Store, receiver: Receiver) -> None:
    first, second = await store.open("first"), await store.open("second")
    await first.lanes.sync_endpoints(["crm"])
    async with delivering(first, endpoint(url=receiver.url)), delivering(second, endpoint(url=receiver.url)):
        for number in range(1, 31):
            log = await first.open_stream(new_stream(number))
            await log.append(run(number, 1, 20))
        await receiver.wait(600)
    assert all(sequences == list(range(1, 21)) for sequences in per_stream(receiver.requests).values()), (
        "two dispatchers must together send every event once, in order"
    )


async def test_a_closed_stream_is_sent_to_its_end_while_stopping(store: Store, receiver: Receiver) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    logs = [await outbox.open_stream(new_stream(number)) for number in range(1, 11)]
    async with delivering(outbox, endpoint(url=receiver.url)) as dispatcher:
        for number, log in enumerate(logs, 1):
            await log.append([*run(number, 1, 150), ended(number, 151)])
        await dispatcher.stop(20)
        assert counted(dispatcher, "delivered") == 10 * 151
    assert all(sequences == list(range(1, 152)) for sequences in per_stream(receiver.requests).values()), (
        "a stop must send a closed stream to its end"
    )


async def test_a_stored_retry_is_made_after_a_restart_under_the_same_name(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500 if len(receiver.requests) == 1 else 200)
    half_a_second = Retry(schedule=(timedelta(milliseconds=500),), jitter=0)
    async with sqlite(tmp_path) as store:
        store.clock = CLOCK  # type: ignore[assignment]  # as above
        outbox = await store.open()
        await outbox.lanes.sync_endpoints(["crm"])
        log = await outbox.open_stream(new_stream())
        await log.append(run(1, 1, 2))
        async with delivering(outbox, endpoint(url=receiver.url, retry=half_a_second)):
            await receiver.wait(1)
    async with sqlite(tmp_path) as store:
        store.clock = CLOCK  # type: ignore[assignment]  # as above
        async with delivering(await store.open(), endpoint(url=receiver.url, retry=half_a_second)):
            await receiver.wait(3)
    assert per_stream(receiver.requests) == {new_stream().id: [1, 1, 2]}, (
        "a stored retry must be made after a restart, before newer events"
    )
    assert receiver.requests[1].at - receiver.requests[0].at > 0.49


async def test_superseded_interims_are_passed_over_and_settled(store: Store, receiver: Receiver) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    now_ms = CLOCK.now_ms()
    await log.append([interim(1, n, revision=n, at=now_ms) for n in range(1, 100)])
    async with delivering(outbox, endpoint(url=receiver.url), linger_ms=0, sweep_seconds=0.1) as dispatcher:
        await receiver.wait(1)
        await log.append([ended(1, 100)])
        await receiver.wait(2)
        await until(lambda: (counted(dispatcher, "delivered"), counted(dispatcher, "skipped")) == (2, 98))
    assert per_stream(receiver.requests) == {new_stream().id: [99, 100]}
    again = await store.open("again")
    assert await again.lanes.claim({"crm": 10}, lease_ms=1000) == []


def told(receiver: Receiver) -> list[tuple[str, Any]]:
    """What arrived about other endpoints."""
    return [
        (request.json()["type"], request.json()["data"])
        for request in receiver.requests
        if request.json()["type"].startswith(("delivery.", "endpoint."))
    ]


async def test_a_head_that_is_parked_is_retried_aside_and_others_are_told(store: Store, receiver: Receiver) -> None:
    receiver.answer = lambda r: Answer(500 if r.path == "/crm" and r.json()["id"] == event_id(stream_id(1), 1) else 200)
    quick = Retry(schedule=(timedelta(milliseconds=200),), park_after=timedelta(0), jitter=0)
    ends = endpoint(url=f"{receiver.url}/crm", retry=quick), endpoint("ops", url=f"{receiver.url}/ops", rooms=["none"])
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "ops"])
    async with delivering(outbox, *ends, sweep_seconds=0.1) as dispatcher:
        await (await outbox.open_stream(new_stream(2))).append(run(2, 1, 1))
        await until(lambda: counted(dispatcher, "delivered") == 1)  # the endpoint is healthy: only one event fails
        log = await outbox.open_stream(new_stream())
        await log.append(run(1, 1, 2))
        await receiver.wait_for(lambda: len(told(receiver)) == 2)
        await until(lambda: counted(dispatcher, "dead") == 1)
    to_crm = [
        (r.json()["stream"]["sequence"], r.headers["relay-previous-sequence"])
        for r in receiver.requests
        if r.path == "/crm" and r.json()["stream"]["id"] == stream_id(1)
    ]
    assert sorted(to_crm) == [(1, "0"), (1, "0"), (2, "1")]
    kinds = [(kind, data["endpoint"], data["sequence"], data["attempts"]) for kind, data in told(receiver)]
    assert kinds == [("delivery.parked", "crm", 1, 1), ("delivery.dead", "crm", 1, 2)]


async def test_an_endpoint_that_is_gone_is_disabled_and_gets_it_all_once_it_is_enabled(
    store: Store, receiver: Receiver
) -> None:
    receiver.answer = lambda r: Answer(410 if r.path == "/crm" else 200)
    ends = endpoint(url=f"{receiver.url}/crm"), endpoint("ops", url=f"{receiver.url}/ops", rooms=["none"])
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "ops"])
    async with delivering(outbox, *ends, sweep_seconds=0.1) as dispatcher:
        log = await outbox.open_stream(new_stream())
        await log.append(run(1, 1, 2))
        await receiver.wait_for(lambda: len(told(receiver)) == 1)
        await log.append([durable(1, 3)])
        receiver.answer = lambda _: Answer()
        async with open_log(store.url, CLOCK) as operator:
            await operator.endpoints.enable("crm", replay=True)
        await receiver.wait_for(lambda: [r.path for r in receiver.requests].count("/crm") == 4)
        await until(lambda: counted(dispatcher, "delivered") == 5)
    to_crm = [r.json()["stream"]["sequence"] for r in receiver.requests if r.path == "/crm"]
    assert to_crm == [1, 1, 2, 3]
    assert [(kind, data.get("reason")) for kind, data in told(receiver)] == [
        ("endpoint.disabled", "gone"), ("endpoint.enabled", None),
    ]  # fmt: skip


async def test_the_condition_of_an_endpoint_is_known_to_the_log(store: Store, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    async with delivering(outbox, endpoint(url=receiver.url), sweep_seconds=0.1):
        log = await outbox.open_stream(new_stream())
        await log.append(run(1, 1, 1))
        await receiver.wait(1)
    state = (await outbox.lanes.endpoint_states())["crm"]
    assert state.failing_since is not None
    assert (state.last_error, state.succeeded_at) == ("status 500", None)
