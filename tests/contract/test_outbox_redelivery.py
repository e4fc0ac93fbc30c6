"""Another attempt because an operator asks for it: at once, once, and with the schedule that is due."""

import socket

import pytest

from relay.outbox.opening import attended, log_file
from relay.outbox.operator import redelivery as control
from relay.outbox.operator.redelivery import Retried
from relay.outbox.records import DeadLetter, ParkedSettlement, Settlement
from relay.outbox.schema import dead_letters, lanes, parked
from relay.outbox.sqlite.doorbell import directory
from tests.support.builders import new_stream, run, stream_id
from tests.support.outbox.outbox_situation import MINUTE, event, every_state, looking
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, rows, the_lane


async def test_a_dead_event_is_due_now_with_its_whole_schedule_before_it(store: Store) -> None:
    outbox = await every_state(store)
    async with looking(store) as log:
        assert await log.redelivery.retry(event(3), "crm") is Retried.REVIVED
    (again,) = await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS)
    assert (again.record.sequence, again.attempts, again.previous) == (3, 0, 2)
    assert await rows(outbox, dead_letters) == []


async def test_asking_twice_is_one_attempt(store: Store) -> None:
    outbox = await every_state(store)
    async with looking(store) as log, looking(store) as another:
        assert await log.redelivery.retry(event(3), "crm") is Retried.REVIVED
        assert await another.redelivery.retry(event(3), "crm") is Retried.HASTENED
        assert len(await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS)) == 1
        assert await log.redelivery.retry(event(3), "crm") is Retried.UNDER_WAY
        assert await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS) == []


async def test_a_revived_event_may_die_again(store: Store) -> None:
    outbox = await every_state(store)
    async with looking(store) as log:
        await log.redelivery.retry(event(3), "crm")
        (again,) = await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS)
        dead = DeadLetter(3, 12, "status 500", 2)
        await outbox.lanes.settle_parked(ParkedSettlement(again.lane, 3, again.fence, 12, dead=dead))
        assert await log.redelivery.retry(event(3), "crm") is Retried.REVIVED


async def test_a_parked_event_is_due_now(store: Store) -> None:
    outbox = await every_state(store)
    assert await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS) == []
    async with looking(store) as log:
        assert await log.redelivery.retry(event(2), "crm") is Retried.HASTENED
    (again,) = await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS)
    assert (again.record.sequence, again.attempts) == (2, 3)


async def test_a_head_that_is_retried_is_due_now_and_no_lease_is_cut_short(store: Store) -> None:
    outbox = await every_state(store)
    assert await claim(outbox.lanes, "crm") == []
    async with looking(store) as log:
        assert await log.redelivery.retry(event(4), "crm") is Retried.HASTENED
        lane = await the_lane(outbox.lanes)
        assert (lane.cursor, lane.attempts) == (3, 2)
        assert await log.redelivery.retry(event(4), "crm") is Retried.UNDER_WAY
        assert await claim(outbox.lanes, "crm") == []
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, 4, 4, 0))  # its lease still holds


async def test_what_there_is_nothing_to_retry_of_is_said(store: Store) -> None:
    outbox = await every_state(store)
    async with looking(store) as log:
        assert await log.redelivery.retry(event(1), "crm") is Retried.SETTLED
        assert await log.redelivery.retry(event(5), "crm") is Retried.IN_TURN
        assert await log.redelivery.retry(event(1), "bi") is Retried.IN_TURN
        assert await log.redelivery.retry(event(7), "crm") is Retried.UNKNOWN
        assert await log.redelivery.retry(event(1), "nobody") is Retried.UNKNOWN
        await log.purge.participant("alice")
        assert await log.redelivery.retry(event(3), "crm") is Retried.EMPTIED
    assert await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS) == []


async def test_all_dead_events_are_retried_in_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "STEP", 4)
    outbox = await every_state(store)
    log_of_two = await outbox.open_stream(new_stream(2))
    await log_of_two.append(run(2, 1, 10))
    lane = await the_lane(outbox.lanes)
    for sequence in range(1, 11):
        store.clock.at += MINUTE
        dead = DeadLetter(sequence, 12, "status 500", sequence - 1)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, sequence, sequence, 0, dead=dead))
    async with looking(store) as log:
        recent = [count async for count in log.redelivery.retry_dead("crm", since=store.clock.at - 2 * MINUTE)]
        assert recent == [3]
        assert [count async for count in log.redelivery.retry_dead("bi")] == []
        assert [count async for count in log.redelivery.retry_dead("crm")] == [4, 4]
        assert [count async for count in log.redelivery.retry_dead("crm")] == []
    assert await rows(outbox, dead_letters) == []
    assert len(await rows(outbox, parked)) == 1 + 11
    due = await outbox.lanes.claim_parked({"crm": 20}, lease_ms=LEASE_MS)
    assert len(due) == 11 + 1  # the one that was parked before is due by now
    assert {each.record.id.rpartition("_")[0].removeprefix("evt_") for each in due} == {
        stream_id(number).removeprefix("str_") for number in (1, 2)
    }


async def test_a_clock_that_was_set_back_hides_no_dead_event(store: Store) -> None:
    outbox = await every_state(store)
    store.clock.set_by = -60 * MINUTE
    async with looking(store) as log:
        assert [count async for count in log.redelivery.retry_dead("crm")] == [1]
        (again,) = await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
        store.clock.set_by = 0
        dead = DeadLetter(3, 12, "status 500", 2)
        await outbox.lanes.settle_parked(ParkedSettlement(again.lane, 3, again.fence, 12, dead=dead))
        store.clock.set_by = -60 * MINUTE
        assert [count async for count in log.redelivery.discard_dead("crm")] == [1]
    assert await rows(outbox, dead_letters) == []


async def test_what_dies_while_all_are_retried_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "STEP", 1)
    outbox = await every_state(store)
    async with looking(store) as log:
        async for _ in log.redelivery.retry_dead("crm"):
            (again,) = await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS)
            store.clock.at += 1
            dead = DeadLetter(3, 12, "status 500", 2)
            await outbox.lanes.settle_parked(ParkedSettlement(again.lane, 3, again.fence, 12, dead=dead))
    assert len(await rows(outbox, dead_letters)) == 1


async def test_the_commands_disable_and_enable_what_a_dispatcher_obeys(store: Store) -> None:
    outbox = await every_state(store)
    async with looking(store) as log:
        assert await log.endpoints.disable("bi", "operator")
        assert not await log.endpoints.disable("bi", "operator")
        assert await claim(outbox.lanes, "bi") == []
        assert await log.endpoints.enable("bi", replay=True) == 0
        assert [lane.cursor for lane in await claim(outbox.lanes, "bi")] == [0, 0]
        assert await log.endpoints.enable("bi", replay=True) is None


async def test_an_endpoint_is_introduced_once_and_without_lanes(store: Store) -> None:
    outbox = await every_state(store)
    async with looking(store) as log:
        await log.endpoints.introduce("crm")  # which is known, and stays active
        await log.endpoints.introduce("fresh")
        assert await log.endpoints.disable("fresh", "operator")
        await log.endpoints.introduce("fresh")
    states = await outbox.lanes.endpoint_states()
    assert [(name, state.active) for name, state in states.items()] == [("bi", True), ("crm", True), ("fresh", False)]
    assert "fresh" not in {row[1] for row in await rows(outbox, lanes)}
    await outbox.lanes.sync_endpoints(["crm", "bi", "fresh"])
    fresh = (await outbox.lanes.endpoint_states())["fresh"]
    assert (fresh.active, fresh.disabled_because) == (True, "operator")


async def test_a_log_is_attended_while_a_dispatcher_listens_to_it(store: Store) -> None:
    outbox = await store.open()
    assert not attended(store.url)
    doorbell = outbox.listen(lambda _: None)
    assert attended(store.url)
    doorbell.close()
    assert not attended(store.url)


@pytest.mark.parametrize("either_store", ["sqlite"], indirect=True)
async def test_a_dispatcher_that_was_killed_attends_to_nothing(store: Store) -> None:
    await store.open()
    file = log_file(store.url)
    assert file is not None
    left = directory(file) / "1-dead"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(left))
        assert attended(store.url)
    assert left.exists()
    assert not attended(store.url)
