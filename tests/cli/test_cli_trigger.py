"""``trigger``: a sample arrives as the real event would."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from relay.cli.sample import fresh
from relay.events.catalog import CATALOG, parse
from relay.events.envelope import StreamEvent
from relay.events.samples import SAMPLES
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Answer, receiving
from tests.support.outbox.operator import Folder


@pytest.mark.parametrize("event_type", CATALOG)
def test_a_sample_of_every_type_is_new_each_time(event_type: str) -> None:
    one, other = fresh(event_type, endpoint="crm"), fresh(event_type, endpoint="crm")
    event, sample = parse(one.body), SAMPLES[event_type]
    assert (event.type, event.id) == (event_type, one.id)
    assert len({one.id, other.id, sample.id}) == 3
    assert abs(event.timestamp - datetime.now(UTC)) < timedelta(minutes=1)
    if isinstance(event, StreamEvent) and isinstance(sample, StreamEvent):
        assert event.timing.emitted_at - event.timestamp == sample.timing.emitted_at - sample.timestamp
        assert event.stream.sequence == one.sequence


def identities(value: Any) -> list[str]:
    """Everyone who is named anywhere in an event."""
    if isinstance(value, dict):
        own = [value["identity"]] if value.get("identity") else []
        return own + [name for each in value.values() for name in identities(each)]
    return [name for each in value for name in identities(each)] if isinstance(value, list) else []


@pytest.mark.parametrize("event_type", CATALOG)
def test_nobody_takes_a_sample_for_a_call_that_was_made(event_type: str) -> None:
    event = json.loads(fresh(event_type, endpoint="crm").body)
    assert all(name.startswith("sample-") for name in identities(event))
    if room := event.get("room"):
        assert (room["name"], room["sid"]) == ("sample-support-42", "RM_sample")
    if participant := event.get("participant"):
        assert participant["name"].startswith("Sample ")


@pytest.mark.parametrize("command", [("trigger", "speech.started", "--endpoint", "crm"), ("endpoints", "ping", "crm")])
async def test_what_is_sent_past_the_log_is_marked_as_a_sample(tmp_path: Path, command: tuple[str, ...]) -> None:
    folder = Folder(tmp_path)
    async with receiving() as receiver:
        folder.configure(crm={"url": receiver.url})
        assert (await folder.run(*command)).returncode == 0
    assert receiver.requests[0].headers["relay-sample"] == "true"


async def test_it_is_signed_and_projected_for_the_endpoint(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with receiving() as receiver:
        folder.configure(crm={"url": receiver.url, "include": {"text": False}, "headers": {"X-Tenant": "acme"}})
        outcome = await folder.json("trigger", "transcript.final", "--endpoint", "crm", "--room", "sales")
    (request,) = receiver.requests
    event = Webhook(SECRET).verify(request.body, request.headers)
    assert event == json.loads(request.body)
    assert (event["data"]["text"], event["data"]["words"], event["room"]["name"]) == ("", [], "sales")
    assert request.headers["x-tenant"] == "acme"
    assert (outcome["taken"], outcome["event_id"]) == (True, request.id)


async def test_exit_code_1_when_it_was_not_taken(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with receiving() as receiver:
        folder.configure(crm={"url": receiver.url})
        receiver.answer = lambda _: Answer(500)
        done = await folder.run("trigger", "speech.started", "--endpoint", "crm")
    assert done.returncode == 1
    assert done.stderr.endswith(": status 500\n")


async def test_what_the_endpoint_does_not_ask_for_is_not_sent(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with receiving() as receiver:
        settings = {"url": receiver.url, "events": ["speech.*", "delivery.*"], "rooms": ["sales-*"]}
        folder.configure(crm=settings)
        wrong_type = await folder.run("trigger", "transcript.final", "--endpoint", "crm")
        wrong_room = await folder.run("trigger", "speech.started", "--endpoint", "crm")
        assert receiver.requests == []
        in_room = await folder.run("trigger", "speech.started", "--endpoint", "crm", "--room", "sales-1")
        about_no_room = await folder.run("trigger", "delivery.dead", "--endpoint", "crm")
    assert (wrong_type.returncode, wrong_type.stderr) == (1, "not sent: crm asks for speech.*, delivery.*\n")
    assert wrong_room.returncode == 1
    assert "crm asks for rooms sales-* and participants *" in wrong_room.stderr
    assert (in_room.returncode, about_no_room.returncode) == (0, 0)
    assert [request.json()["type"] for request in receiver.requests] == ["speech.started", "delivery.dead"]


async def test_the_only_endpoint_need_not_be_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with receiving() as receiver:
        folder.configure(crm={"url": receiver.url})
        done = await folder.run("trigger", "stream.started")
    assert done.returncode == 0, done.stderr
    assert len(receiver.requests) == 1


async def test_one_of_several_endpoints_must_be_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.configure(crm={"url": "http://127.0.0.1:1"}, billing={"url": "http://127.0.0.1:1"})
    done = await folder.run("trigger", "stream.started")
    assert (done.returncode, done.stderr) == (2, "Error: give --endpoint, one of crm, billing\n")


async def test_a_type_that_there_is_not_gets_a_suggestion(tmp_path: Path) -> None:
    done = await Folder(tmp_path).run("trigger", "transcript.finl", "--endpoint", "crm")
    assert (done.returncode, done.stderr) == (
        2,
        "no event type is called transcript.finl; did you mean transcript.final?\n",
    )


async def test_cloudevents_are_sent_as_such(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with receiving() as receiver:
        folder.configure(crm={"url": receiver.url, "format": "cloudevents", "events": ["*"]})
        for event_type in ("ping", "overlap.started", "delivery.parked"):
            assert (await folder.run("trigger", event_type, "--endpoint", "crm")).returncode == 0
    assert {request.json()["specversion"] for request in receiver.requests} == {"1.0"}
