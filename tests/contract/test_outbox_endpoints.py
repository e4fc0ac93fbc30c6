"""Endpoints that are disabled keep what is theirs; enabled, they get it or go on from now, as was asked for."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from relay.clock import instant
from relay.errors import Fenced
from relay.events.catalog import parse
from relay.events.operator import EndpointDisabled, EndpointDisabledData, EndpointEnabled, EndpointEnabledData
from relay.outbox import schema
from relay.outbox.log import endpoints
from relay.outbox.log.api_endpoints import NewApiEndpoint
from relay.outbox.log.audience import StreamAudience
from relay.outbox.log.endpoints import Endpoints
from relay.outbox.outbox import Outbox
from relay.outbox.records import EndpointState, Health, Lane, Settlement, Stored
from tests.support.builders import EPOCH_MS, durable, new_stream, run, track
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, one_stream, parking, rows, settled, the_lane

HOUR = 3_600_000


def operator(outbox: Outbox) -> Endpoints:
    return Endpoints(outbox._commit, outbox._database, outbox.lanes._clock)


async def notices(outbox: Outbox, endpoint: str) -> list[object]:
    found: list[object] = []
    for lane in await claim(outbox.lanes, endpoint):
        if not lane.room:
            found += [parse(one.body) for one in await outbox.lanes.read(lane.stream, lane.cursor, 100)]
    return found


async def test_the_log_tells_of_every_endpoint_that_it_knows(store: Store) -> None:
    outbox = await one_stream(store, "crm", "removed")
    await outbox.lanes.sync_endpoints(["crm"])
    assert await outbox.lanes.endpoint_states() == {
        "crm": EndpointState("crm", active=True),
        "removed": EndpointState("removed", active=False),
    }


async def test_health_that_is_not_known_does_not_wipe_out_what_was(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    await outbox.lanes.note_health([Health("crm", 5, 4, 6, "timeout"), Health("other", None, 7, None, None)])
    await outbox.lanes.note_health([Health("crm", None, 8, None, None), Health("other", 9, None, 9, "dns")])
    await outbox.lanes.note_health([])
    assert await outbox.lanes.endpoint_states() == {
        "crm": EndpointState("crm", True, failing_since=None, succeeded_at=8, failed_at=6, last_error="timeout"),
        "other": EndpointState("other", True, failing_since=9, succeeded_at=7, failed_at=9, last_error="dns"),
    }


async def test_a_disabled_endpoint_is_not_claimed_by_anybody_and_its_events_are_kept(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    second = await store.open("second")
    assert await outbox.lanes.disable("crm", "gone") is True
    assert await outbox.lanes.disable("crm", "failing") is False
    assert await outbox.lanes.disable("nobody", "failing") is False
    state = (await outbox.lanes.endpoint_states())["crm"]
    assert (state.disabled_at, state.disabled_because) == (EPOCH_MS, "gone")
    log = await outbox.open_stream(new_stream(2))
    await log.append(run(2, 1, 2))
    assert await claim(outbox.lanes, "crm") == await claim(second.lanes, "crm") == []
    assert (await outbox.lanes.unsettled())["crm"] == 5
    await outbox.lanes.sync_endpoints(["crm", "other"])
    assert await claim(outbox.lanes, "crm") == [], "a restart does not enable it"


async def test_what_was_in_flight_when_an_endpoint_was_disabled_still_settles(store: Store) -> None:
    outbox = await one_stream(store)
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.disable("crm", "operator")
    await outbox.lanes.settle(settled(lane, 1))
    await outbox.lanes.release([(lane.id, lane.fence)])
    assert (await outbox.lanes.unsettled())["crm"] == 2


async def test_the_others_are_told_of_an_endpoint_that_is_disabled_and_enabled(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    await outbox.lanes.note_health([Health("crm", EPOCH_MS - 5, None, EPOCH_MS, "connect")])
    await outbox.lanes.disable("crm", "failing")
    store.clock.at += HOUR
    await operator(outbox).enable("crm", replay=True)
    disabled, enabled = await notices(outbox, "other")
    assert isinstance(disabled, EndpointDisabled)
    assert isinstance(enabled, EndpointEnabled)
    assert disabled.data == EndpointDisabledData(
        endpoint="crm", reason="failing", failing_since=instant(EPOCH_MS - 5), last_error="connect"
    )
    assert enabled.data == EndpointEnabledData(endpoint="crm", replay=True, disabled_at=instant(EPOCH_MS))
    assert await notices(outbox, "crm") == []


async def test_an_enabled_endpoint_gets_what_it_missed_and_at_once_what_waited_for_a_retry(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(parking(lane, retry_at=EPOCH_MS + HOUR))
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 4, next_at=EPOCH_MS + HOUR, failing_since=EPOCH_MS))
    await outbox.lanes.note_health([Health("crm", EPOCH_MS, None, EPOCH_MS, "connect")])
    await outbox.lanes.disable("crm", "failing")
    store.clock.at += 10
    assert await operator(outbox).enable("crm", replay=True) == 0
    state = (await outbox.lanes.endpoint_states())["crm"]
    assert (state.disabled_at, state.disabled_because, state.failing_since) == (None, None, None)
    again = await the_lane(outbox.lanes)
    assert (again.cursor, again.attempts) == (1, 4)
    (aside,) = await outbox.lanes.claim_parked({"crm": 9}, lease_ms=LEASE_MS)
    assert aside.record.sequence == 1


async def test_an_attempt_in_flight_keeps_its_lease_when_its_endpoint_is_enabled_again(store: Store) -> None:
    outbox = await one_stream(store)
    second = await store.open("second")
    await outbox.lanes.settle(parking(await the_lane(outbox.lanes), retry_at=EPOCH_MS))
    await outbox.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS)
    await outbox.lanes.disable("crm", "operator")
    await operator(outbox).enable("crm", replay=True)
    assert await claim(second.lanes) == []
    assert await second.lanes.claim_parked({"crm": 1}, lease_ms=LEASE_MS) == []


async def test_an_endpoint_that_is_to_go_on_from_now_misses_what_lies_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "STEP", 2)
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "other"])
    logs = [await outbox.open_stream(new_stream(number)) for number in range(1, 6)]
    for number, log in enumerate(logs, 1):
        await log.append(run(number, 1, 3))
    held = await claim(outbox.lanes, "crm")
    for lane in held[:3]:
        await outbox.lanes.settle(parking(lane, retry_at=EPOCH_MS))
    at_the_end = held[0]
    await outbox.lanes.settle(settled(at_the_end, 3))
    await outbox.lanes.disable("crm", "operator")
    parked, behind = 3, 2 + 2 + 3 + 3
    assert await operator(outbox).enable("crm", replay=False) == parked + behind

    with pytest.raises(Fenced):  # what it held it has lost
        await outbox.lanes.settle(settled(held[1], 2))
    await outbox.lanes.settle(settled(at_the_end, 3))
    assert await rows(outbox, schema.parked) == []
    assert await claim(outbox.lanes, "crm") == []
    assert (await outbox.lanes.unsettled())["crm"] == 0
    await logs[1].append([durable(2, 4)])
    lane = await the_lane(outbox.lanes)
    assert (lane.cursor, lane.last_sent, lane.attempts) == (3, 3, 0), "and the receiver sees that something is missing"
    assert len([lane for lane in await claim(outbox.lanes, "other") if lane.room]) == 5, "the others miss nothing"


async def test_only_what_is_disabled_can_be_enabled(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    for replay in (True, False):
        assert await operator(outbox).enable("crm", replay=replay) is None
        assert await operator(outbox).enable("nobody", replay=replay) is None
    assert (await outbox.lanes.unsettled())["crm"] == 3
    assert await notices(outbox, "other") == []


async def test_an_enabling_that_broke_off_is_done_by_doing_it_again(store: Store) -> None:
    outbox = await one_stream(store, "crm", "other")
    await outbox.lanes.disable("crm", "operator")
    await operator(outbox)._skip_lanes("crm")
    assert (await outbox.lanes.endpoint_states())["crm"].disabled_at is not None
    assert await operator(outbox).enable("crm", replay=False) == 0
    assert [type(one) for one in await notices(outbox, "other")] == [EndpointDisabled, EndpointEnabled]


async def test_a_new_configuration_takes_endpoints_away_and_gives_them_back(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    for names in (["a"], ["a", "b"], ["b"], ["a", "b"], []):
        await outbox.lanes.sync_endpoints(names)
        states = await outbox.lanes.endpoint_states()
        assert {name for name, state in states.items() if state.active} == set(names)
        await log.append([durable(1, log.last_sequence + 1)])
    assert await claim(outbox.lanes, "a", "b") == []
    await outbox.lanes.sync_endpoints(["a", "b"])
    held: list[Lane] = await claim(outbox.lanes, "a", "b")
    assert sorted((lane.endpoint, lane.cursor) for lane in held) == [("a", 0), ("b", 1)]
    assert len(await rows(outbox, schema.lanes)) == 2


async def test_a_name_that_the_configuration_lets_go_of_is_the_apis_again(store: Store) -> None:
    outbox = await store.open()
    audience = StreamAudience(("*",), ("*",), ("*",), relay=False)
    made = NewApiEndpoint("made", "acme", '{"url": "https://a.example/"}', audience, None)
    assert await outbox.api_endpoints.put(made, "whsec_", most=9) is Stored.MADE
    await outbox.lanes.sync_endpoints(["made"])
    await outbox.lanes.sync_endpoints([])
    await (await outbox.open_stream(new_stream())).append([durable(1, 1)])
    assert [lane.endpoint for lane in await claim(outbox.lanes, "made")] == ["made"]


async def test_an_endpoint_that_was_removed_over_the_api_stays_so_as_a_dispatcher_starts(store: Store) -> None:
    outbox = await one_stream(store)
    audience = StreamAudience(("*",), ("*",), ("*",), relay=False)
    made = NewApiEndpoint("made", None, '{"url": "https://a.example/"}', audience, None)
    assert await outbox.api_endpoints.put(made, "whsec_", most=9) is Stored.MADE
    assert await outbox.api_endpoints.remove("made")
    await outbox.lanes.sync_endpoints(["crm"])
    assert not (await outbox.lanes.endpoint_states())["made"].active


async def test_an_endpoint_of_the_api_holds_back_what_it_has_not_got_until_it_is_disabled(store: Store) -> None:
    outbox = await store.open()
    audience = StreamAudience(("*",), ("*",), ("*",), relay=False)
    made = NewApiEndpoint("made", None, '{"url": "https://a.example/"}', audience, None)
    assert await outbox.api_endpoints.put(made, "whsec_", most=9) is Stored.MADE
    await (await outbox.open_stream(new_stream())).append([durable(1, 1)])
    store.clock.at += 1_000
    await outbox.retention(100).prune()
    assert len(await outbox.history(new_stream().id)) == 1
    await outbox.lanes.disable("made", "failing")
    await outbox.retention(100).prune()
    assert await outbox.history(new_stream().id) == []


@pytest.mark.parametrize("either_store", ["sqlite"], indirect=True)
async def test_making_or_removing_an_endpoint_does_not_read_the_lanes_of_all(store: Store) -> None:
    """It would hold up every append: a log has a million lanes."""
    outbox = await one_stream(store)
    statements: list[tuple[str, Any]] = []
    engine = outbox._database._engine  # type: ignore[attr-defined]
    sa.event.listen(engine, "before_cursor_execute", lambda _c, _k, sql, par, _x, _m: statements.append((sql, par)))
    audience = StreamAudience(("*",), ("*",), ("*",), relay=False)
    made = NewApiEndpoint("made", "acme", '{"url": "https://a.example/"}', audience, None)
    assert await outbox.api_endpoints.put(made, "whsec_", most=9) is Stored.MADE
    assert await outbox.api_endpoints.remove("made")
    assert await outbox.api_endpoints.put(replace(made, tenant="zeta"), "whsec_", most=9) is Stored.FORMER
    assert await outbox.api_endpoints.put(made, "whsec_", most=9) is Stored.MADE
    assert await outbox.api_endpoints.remove("made")
    await outbox.api_endpoints.remove_expired()
    asked = [(sql, parameters) for sql, parameters in statements if "lanes" in sql]

    def plans(connection: sa.Connection) -> list[str]:
        return [str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", par).all()) for sql, par in asked]

    found = await outbox._commit.call(plans)
    assert len(found) > 8
    assert [plan for plan in found if "SCAN lanes" in plan] == []


async def test_an_endpoint_is_looked_for_only_in_rooms_that_it_may_get(store: Store) -> None:
    """To compare a tenant's patterns with the rooms of others takes time, in which nothing is appended."""
    outbox = await store.open()

    async def made(name: str, *rooms: str) -> Stored:
        audience = StreamAudience(rooms, ("*",), ("acme-*",), relay=False)
        new = NewApiEndpoint(name, "acme", '{"url": "https://a.example/"}', audience, None)
        return await outbox.api_endpoints.put(new, "whsec_", most=9)

    def prefixes(connection: sa.Connection) -> dict[str, set[str]]:
        found = connection.execute(sa.select(schema.api_endpoint_rooms)).all()
        return {name: {row.prefix for row in found if row.endpoint == name} for name in ("any", "some", "none")}

    assert await made("any", "*") is await made("some", "acme-x-*", "*-y", "zeta-*") is Stored.MADE
    assert await made("none", "zeta-*") is Stored.MADE
    assert await outbox._reader.query(prefixes) == {"any": {"acme-"}, "some": {"acme-", "acme-x-"}, "none": set()}
    await outbox.api_endpoints.confine({"acme": ["zeta-1"]})
    assert await outbox._reader.query(prefixes) == {"any": {"zeta-1"}, "some": {"zeta-1"}, "none": {"zeta-1"}}
    await outbox.open_stream(track(1, "alice", "zeta-1"))
    assert {1: {"any", "none", "some"}} == {n: set(names) for n, names in (await outbox.lanes.api_lanes([1])).items()}
