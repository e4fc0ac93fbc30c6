"""The commands beside a dispatcher that runs: it does what they say within a second or two."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from relay.outbox.schema import lanes
from tests.support.builders import ended, new_stream, run
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_situation import event
from tests.support.outbox.outbox_store import rows, sqlite

CLOCK = SystemClock()
ONE_TRY = {"schedule": [], "jitter": 0}


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    async with sqlite(tmp_path) as store:
        store.clock = CLOCK  # type: ignore[assignment]  # real time: what is due is due
        yield await store.open()


async def a_stream(outbox: Outbox) -> StreamLog:
    await outbox.lanes.sync_endpoints(["crm"])
    return await outbox.open_stream(new_stream())


def configured(folder: Folder, receiver: Receiver, **settings: object) -> Endpoint:
    settings = {"url": receiver.url, "events": ["*"], **settings}
    folder.configure(crm=settings)
    (endpoint,) = json.loads((folder.path / "config.yaml").read_text())["endpoints"]
    return Endpoint.model_validate(endpoint)


def sequences(receiver: Receiver) -> list[int]:
    return [request.json()["stream"]["sequence"] for request in receiver.requests]


async def test_disabled_nothing_arrives_and_enabled_it_gets_what_it_missed_in_order(
    outbox: Outbox, receiver: Receiver, tmp_path: Path
) -> None:
    folder, log = Folder(tmp_path), await a_stream(outbox)
    endpoint = configured(folder, receiver)
    async with delivering(outbox, [endpoint], CLOCK, grace_s=5):
        await log.append(run(1, 1, 2))
        await receiver.wait(2)
        await folder.run("endpoints", "disable", "crm")
        await _until_it_holds_nothing(outbox)
        before = len(receiver.requests)
        await log.append(run(1, 3, 5))
        (crm,) = (await folder.json("endpoints"))["endpoints"]
        assert (crm["state"], crm["pending"], len(receiver.requests)) == ("disabled", 3, before)
        assert (await folder.json("endpoints", "enable", "crm"))["changed"]
        await receiver.wait(5)
    assert sequences(receiver) == [1, 2, 3, 4, 5]


async def test_a_dead_event_arrives_when_it_is_retried_beside_a_relay_that_runs(
    outbox: Outbox, receiver: Receiver, tmp_path: Path
) -> None:
    folder, log = Folder(tmp_path), await a_stream(outbox)
    endpoint = configured(folder, receiver, retry=ONE_TRY)
    receiver.answer = lambda request: Answer(500 if request.id == event(1) and len(receiver.requests) == 1 else 200)
    async with delivering(outbox, [endpoint], CLOCK, grace_s=5):
        await log.append([*run(1, 1, 2), ended(1, 3)])
        await receiver.wait(3)
        await _until_settled(outbox)
        (dead,) = (await folder.json("deliveries", "--state", "dead"))["deliveries"]
        assert (dead["event_id"], dead["reason"]) == (event(1), "status 500")
        retried = await folder.json("deliveries", "retry", dead["event_id"], "--endpoint", "crm")
        assert (retried["outcome"], retried["waits_for"]) == ("revived", None)
        await receiver.wait(4)
    assert sequences(receiver) == [1, 2, 3, 1]
    shown = await folder.json("deliveries", "show", event(1))
    assert [each["state"] for each in shown["deliveries"]] == ["delivered"]
    assert [each["stage"] for each in shown["attempts"]] == ["status", "ok"]


async def test_a_dead_event_retried_while_the_relay_is_stopped_arrives_at_its_start(
    outbox: Outbox, receiver: Receiver, tmp_path: Path
) -> None:
    folder, log = Folder(tmp_path), await a_stream(outbox)
    endpoint = configured(folder, receiver, retry=ONE_TRY)
    receiver.answer = lambda _: Answer(500 if len(receiver.requests) == 1 else 200)
    async with delivering(outbox, [endpoint], CLOCK, grace_s=5):
        await log.append(run(1, 1, 2))
        await receiver.wait(2)
    assert (await folder.json("deliveries", "retry", "--dead", "--endpoint", "crm"))["retried"] == 1
    async with delivering(outbox, [endpoint], CLOCK, grace_s=5):
        await receiver.wait(3)
    assert sequences(receiver) == [1, 2, 1]
    assert (await folder.json("deliveries"))["deliveries"] == []


async def test_an_endpoint_that_was_disabled_before_its_first_relay_gets_nothing_from_it(
    outbox: Outbox, receiver: Receiver, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    endpoint = configured(folder, receiver)
    assert (await folder.json("endpoints", "disable", "crm"))["changed"]
    log = await a_stream(outbox)
    async with delivering(outbox, [endpoint], CLOCK, grace_s=5):
        await log.append(run(1, 1, 2))
        (crm,) = (await folder.json("endpoints"))["endpoints"]
        assert (crm["state"], crm["pending"], receiver.requests) == ("disabled", 2, [])
        enabled = await folder.json("endpoints", "enable", "crm")
        assert (enabled["changed"], enabled["waits_for"]) == (True, None)
        await receiver.wait(2)
    assert sequences(receiver) == [1, 2]


async def test_a_running_relay_keeps_its_endpoints_whatever_the_file_says_by_now(
    outbox: Outbox, receiver: Receiver, tmp_path: Path
) -> None:
    folder, _ = Folder(tmp_path), await a_stream(outbox)
    endpoint = configured(folder, receiver)
    async with delivering(outbox, [endpoint], CLOCK, grace_s=5):
        folder.configure(fresh={})
        await folder.json("endpoints", "disable", "fresh")
        assert (await folder.json("endpoints", "enable", "fresh"))["waits_for"] == "relay"
        assert (await folder.json("endpoints", "enable", "crm"))["waits_for"] is None
    assert (await folder.json("endpoints", "enable", "crm"))["waits_for"] == "configuration"


async def test_what_was_purged_is_not_sent_any_more(outbox: Outbox, receiver: Receiver, tmp_path: Path) -> None:
    folder, log = Folder(tmp_path), await a_stream(outbox)
    endpoint = configured(folder, receiver)
    await log.append(run(1, 1, 50))
    await folder.json("purge", "--participant", "alice", "--yes")
    async with delivering(outbox, [endpoint], CLOCK, grace_s=5):
        await log.append([*run(1, 51, 51), ended(1, 52)])
        await receiver.wait(2)
    assert sequences(receiver) == [51, 52]


async def _until_settled(outbox: Outbox) -> None:
    """What was answered is in the log a moment later."""
    async with asyncio.timeout(30):
        while (await outbox.lanes.unsettled())["crm"]:
            pass


async def _until_it_holds_nothing(outbox: Outbox) -> None:
    """A dispatcher lets go of the lanes of an endpoint that is disabled."""
    owner = list(lanes.c).index(lanes.c.owner)
    async with asyncio.timeout(30):
        while any(row[owner] is not None for row in await rows(outbox, lanes)):
            pass
