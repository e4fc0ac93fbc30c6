"""Endpoints made over the API as a dispatcher sends to them: awake while they have something due."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from relay.app.reload import RuntimeEndpointSync
from relay.config.api_endpoint import ApiEndpointOptions
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.dispatch import roster
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.endpoint.directory import ApiEndpointDirectory
from relay.dispatch.http.transport import open_transport
from relay.dispatch.signing import new_secret
from relay.outbox.log.api_endpoints import NewApiEndpoint
from relay.outbox.log.audience import StreamAudience
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream, Stored
from tests.contract.test_dispatch_outbox import CLOCK
from tests.support.builders import run, stream_id
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_store import Store, until

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def store(store: Store) -> Store:
    """Each kind of log in turn, in real time: what is due is due."""
    store.clock = CLOCK  # type: ignore[assignment]
    return store


class Relay:
    """A dispatcher that follows the log's endpoints."""

    def __init__(self, outbox: Outbox, url: str, endpoints: tuple[Endpoint, ...]) -> None:
        self.outbox, self._url = outbox, url
        self.dispatcher = Dispatcher(
            outbox.lanes, endpoints, clock=CLOCK, open_transport=open_transport, sweep_seconds=0.2, linger_ms=100
        )
        self.directory = ApiEndpointDirectory(outbox.api_endpoints, allow=LOOPBACK, apply=self.dispatcher.revise)
        self.state = self.dispatcher._state

    async def put(self, name: str, **options: Any) -> Stored:
        chosen = ApiEndpointOptions.model_validate({"url": f"{self._url}/{name}", "events": ["*"], **options})
        audience = StreamAudience(chosen.rooms, chosen.participants, ("*",), relay=False)
        expires_at = None if chosen.expires_at is None else round(chosen.expires_at.timestamp() * 1000)
        new = NewApiEndpoint(name, chosen.tenant, chosen.written(), audience, expires_at)
        stored = await self.outbox.api_endpoints.put(new, new_secret(), most=10_000)
        await self.directory.poll()
        return stored

    async def remove(self, name: str) -> None:
        await self.outbox.api_endpoints.remove(name)
        await self.directory.poll()

    async def stream(self, number: int, room: str) -> StreamLog:
        return await self.outbox.open_stream(NewStream(stream_id(number), f"RM_{room}", room, f"TR_{number}", "alice"))


@asynccontextmanager
async def relaying(outbox: Outbox, url: str, *endpoints: Endpoint) -> AsyncIterator[Relay]:
    relay = Relay(outbox, url, endpoints)
    bell = outbox.listen(relay.dispatcher.ring)
    running = asyncio.create_task(relay.dispatcher.run())
    await relay.directory.poll()
    try:
        yield relay
    finally:
        await relay.dispatcher.stop(10)
        await running
        bell.close()


def came(receiver: Receiver, name: str) -> list[int]:
    """The sequences that an endpoint has got."""
    return [request.json()["stream"]["sequence"] for request in receiver.requests if request.path == f"/{name}"]


async def test_a_new_endpoint_gets_what_is_appended_from_then_on(store: Store, receiver: Receiver) -> None:
    async with relaying(await store.open(), receiver.url) as relay:
        log = await relay.stream(1, "a")
        await log.append(run(1, 1, 2))
        await relay.put("crm", rooms=["a"])
        assert relay.state.endpoints == {}  # it has nothing to do yet
        await log.append(run(1, 3, 4))
        await receiver.wait(2)
        assert came(receiver, "crm") == [3, 4]
        assert receiver.requests[0].headers["webhook-signature"].startswith("v1,")


@pytest.mark.parametrize("awake", [False, True])
async def test_an_endpoint_that_cannot_be_sent_to_stops_no_other(
    store: Store, receiver: Receiver, caplog: pytest.LogCaptureFixture, awake: bool
) -> None:
    async with relaying(await store.open(), receiver.url) as relay:
        for name in ("broken", "crm"):
            await relay.put(name)
        log = await relay.stream(1, "a")
        if awake:
            await log.append(run(1, 1, 1))
            await receiver.wait(2)
        broken = relay.directory.endpoints["broken"].model_copy(update={"headers": {"X": "\ud800"}})
        relay.dispatcher.revise({"broken": broken})
        newest = 1 + awake
        await log.append(run(1, newest, newest))
        await until(lambda: newest in came(receiver, "crm"))
        assert newest not in came(receiver, "broken")
        await relay.put("broken", headers={"X": "mended"})
        await until(lambda: newest in came(receiver, "broken"))
    assert "endpoint broken cannot be sent to: UnicodeEncodeError" in caplog.text


async def test_a_stored_endpoint_with_half_a_character_stops_no_other(store: Store, receiver: Receiver) -> None:
    outbox = await store.open()
    written = json.dumps({"url": f"{receiver.url}/broken", "headers": {"X": "\ud800"}})
    audience = StreamAudience(("*",), ("*",), ("*",), relay=False)
    await outbox.api_endpoints.put(NewApiEndpoint("broken", None, written, audience, None), new_secret(), most=9)
    async with relaying(outbox, receiver.url) as relay:
        await relay.put("crm")
        await (await relay.stream(1, "a")).append(run(1, 1, 1))
        await receiver.wait(1)
        assert came(receiver, "crm") == [1]


async def test_a_stream_has_lanes_only_to_endpoints_that_ask_for_its_room(store: Store, receiver: Receiver) -> None:
    outbox = await store.open()
    async with relaying(outbox, receiver.url) as relay:
        for number in range(50):
            await relay.put(f"idle-{number}", rooms=[f"idle-{number}-*"])
        await relay.put("glob", rooms=["x-[ab]*", "y"])
        await relay.put("bob", rooms=["*"], participants=["bob"])
        logs = [await relay.stream(number, room) for number, room in enumerate(("x-a1", "y", "x-c1", "yy"), 1)]
        for number, log in enumerate(logs, 1):
            await log.append(run(number, 1, 1))
        await receiver.wait(2)
        assert await outbox.lanes.api_lanes([1, 2, 3, 4]) == {1: ["glob"], 2: ["glob"], 3: [], 4: []}
        assert set(relay.state.endpoints) == {"glob"}
        assert len(relay.state.dormant) == 51


async def test_an_endpoint_sleeps_when_it_is_idle_and_is_woken_by_an_event(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "IDLE_MS", 200)
    async with relaying(await store.open(), receiver.url) as relay:
        await relay.put("crm", rooms=["a"])
        log = await relay.stream(1, "a")
        for turn in (1, 2, 3):
            await log.append(run(1, turn, turn))
            await receiver.wait(turn)
            async with asyncio.timeout(30):
                while relay.state.endpoints:  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.05)
        assert came(receiver, "crm") == [1, 2, 3]
        (state,) = (await relay.outbox.lanes.endpoint_states(["crm"])).values()
        assert state.succeeded_at is not None


async def test_what_waited_for_a_retry_or_a_restart_is_sent(store: Store, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(503)
    outbox = await store.open()
    retry = {"schedule": ["1s"] * 30, "park_after": "0s"}
    async with relaying(outbox, receiver.url) as relay:
        await relay.put("crm", rooms=["a"], retry=retry, breaker=None)
        log = await relay.stream(1, "a")
        await log.append(run(1, 1, 1))
        await receiver.wait(1)
    receiver.answer = lambda _: Answer()
    async with relaying(outbox, receiver.url) as relay:
        await receiver.wait_for(lambda: len(receiver.answered) > 1 and came(receiver, "crm")[-1] == 1)
        await log.append(run(1, 2, 2))
        await receiver.wait_for(lambda: came(receiver, "crm")[-1] == 2)


async def test_a_removed_endpoint_gets_nothing_and_starts_anew_if_it_returns(store: Store, receiver: Receiver) -> None:
    async with relaying(await store.open(), receiver.url) as relay:
        await relay.put("crm", rooms=["a"])
        await relay.put("bi", rooms=["a"])
        log = await relay.stream(1, "a")
        await log.append(run(1, 1, 1))
        await receiver.wait(2)
        await relay.remove("crm")
        await log.append(run(1, 2, 2))
        await receiver.wait_for(lambda: came(receiver, "bi") == [1, 2])
        assert await relay.put("crm", rooms=["a"]) is Stored.MADE
        await log.append(run(1, 3, 3))
        await receiver.wait_for(lambda: came(receiver, "bi") == [1, 2, 3] and 3 in came(receiver, "crm"))
        assert came(receiver, "crm") == [1, 3]


async def test_an_expired_endpoint_is_removed_by_the_one_that_follows_the_log(store: Store, receiver: Receiver) -> None:
    async with relaying(await store.open(), receiver.url) as relay:
        await relay.put("crm", rooms=["a"], expires_at="2999-01-01T00:00:00Z")
        await relay.put("over", rooms=["a"], expires_at="2020-01-01T00:00:00Z")
        following = asyncio.create_task(relay.directory.run(3600))
        await until(lambda: "over" not in relay.directory.endpoints)
        log = await relay.stream(1, "a")
        await log.append(run(1, 1, 1))
        await receiver.wait(1)
        assert came(receiver, "over") == []
        assert await relay.outbox.api_endpoints.get("over") is None
        following.cancel()


async def test_events_flow_without_a_gap_while_endpoints_are_made_and_changed(store: Store, receiver: Receiver) -> None:
    async with relaying(await store.open(), receiver.url) as relay:
        await relay.put("steady", rooms=["a"])
        log = await relay.stream(1, "a")
        for turn in range(1, 61):
            await log.append(run(1, turn, turn))
            if turn % 3 == 0:
                await relay.put(f"other-{turn % 7}", rooms=["a" if turn % 2 else "b"], timeout=turn)
            if turn == 30:
                await relay.put("steady", rooms=["a"], timeout="7s")
        await receiver.wait_for(lambda: len(came(receiver, "steady")) == 60)
        assert came(receiver, "steady") == list(range(1, 61))


async def test_the_configuration_takes_a_name_over_and_gives_it_back(store: Store, receiver: Receiver) -> None:
    outbox = await store.open()
    async with relaying(outbox, receiver.url) as relay:
        await relay.put("crm", rooms=["a"])
        log = await relay.stream(1, "a")
        await log.append(run(1, 1, 1))
        await receiver.wait(1)
        configured = Endpoint.model_validate(
            {"name": "crm", "url": f"{receiver.url}/config", "signing": "none", "events": ["*"]}
        )
        await relay.dispatcher.reload([configured])
        await relay.put("crm", rooms=["a"], timeout="9s")
        await log.append(run(1, 2, 2))
        await receiver.wait_for(lambda: came(receiver, "config") == [2])
        await relay.dispatcher.reload([])
        relay.dispatcher.revise(relay.directory.endpoints)
        await log.append(run(1, 3, 3))
        await receiver.wait_for(lambda: came(receiver, "crm") == [1, 3])
        assert json.loads(receiver.requests[-1].body)["stream"]["sequence"] == 3


async def test_a_disabled_endpoint_of_an_absent_owner_holds_nothing_back(store: Store, receiver: Receiver) -> None:
    outbox = await store.open()
    async with relaying(outbox, receiver.url) as relay:
        await relay.put("crm", rooms=["a"])
        await outbox.lanes.disable("crm", "failing")
        log = await relay.stream(1, "a")
        await log.append(run(1, 1, 3))
        await outbox.retention(-(10**12)).prune()
        assert await outbox.history(stream_id(1)) == []
        assert await outbox.lanes.due_api_endpoints() == (set(), set())


async def test_the_configuration_confines_tenants_and_wins_a_name(
    store: Store, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await store.open()
    async with relaying(outbox, receiver.url) as relay:
        await relay.put("wide", tenant="acme", rooms=["*"])
        token = {"name": "acme", "token": "a" * 24, "tenant": "acme", "rooms": ["acme-*"]}
        config = Config.model_validate({"api": {"tokens": [token], "runtime_endpoints": {"allow": ["127.0.0.0/8"]}}})
        sync = RuntimeEndpointSync(outbox.api_endpoints, config)
        await sync.start()
        sync.send_with(relay.dispatcher)
        for number, room in enumerate(("acme-1", "zeta-1"), 1):
            log = await relay.stream(number, room)
            await log.append(run(number, 1, 1))
        await receiver.wait(1)
        assert await outbox.lanes.api_lanes([1, 2]) == {1: ["wide"], 2: []}
        configured = Endpoint.model_validate({"name": "wide", "url": receiver.url, "signing": "none"})
        await relay.dispatcher.reload([configured])
        sync.give_way([configured])
        assert "endpoint wide of the configuration replaces the one" in caplog.text
