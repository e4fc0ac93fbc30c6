"""``deliveries``: what is not delivered, why, and another attempt."""

import asyncio
import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.cli.log import moment
from relay.clock import SystemClock
from relay.outbox.records import Health, Settlement
from relay.outbox.schema import dead_letters, resends
from tests.support.builders import durable, new_stream, stream_id
from tests.support.cli import environment
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_situation import MINUTE, attempt, event, every_state
from tests.support.outbox.outbox_store import LEASE_MS, Store, claim, rows, settled, the_lane


async def test_what_is_not_delivered_is_listed_with_its_reason(store: Store, tmp_path: Path) -> None:
    await every_state(store)
    folder = Folder(tmp_path)
    folder.configure(crm={"events": ["*"]}, bi={"rooms": ["lobby"]})
    found = (await folder.json("deliveries"))["deliveries"]
    # what bi does not ask for is not on the list, nor what it would hear about crm: it asks for the default types
    assert [(each["endpoint"], each["state"], each["sequence"]) for each in found] == [
        ("crm", "retrying", 4),
        ("crm", "parked", 2),
        ("crm", "dead", 3),
        ("crm", "pending", 5),
        ("crm", "pending", 6),
    ]
    assert found[2] == {
        "endpoint": "crm",
        "event_id": event(3),
        "state": "dead",
        "since": "2027-01-15T08:12:00.000Z",
        "type": "stt.speech_started",
        "room": "room",
        "participant": "alice",
        "stream_id": stream_id(1),
        "sequence": 3,
        "attempts": 12,
        "next_attempt": None,
        "reason": "connect: refused",
        "last_failure": "2027-01-15T08:12:00.000Z",
    }


async def test_lists_by_state_endpoint_and_number(store: Store, tmp_path: Path) -> None:
    await every_state(store)
    folder = Folder(tmp_path)
    folder.configure(crm={"events": ["*"]}, bi={"events": ["*"]})
    some = await folder.json("deliveries", "list", "--state", "dead", "--state", "delivered", "--endpoint", "crm")
    assert [(each["state"], each["sequence"]) for each in some["deliveries"]] == [("dead", 3), ("delivered", 1)]
    shown = await folder.run("deliveries", "--endpoint", "bi", "--limit", "1")
    summary, _, head, row, _, more = shown.stdout.splitlines()
    assert summary == "bi: 8 waiting"
    heads = ["STATE", "SINCE", "ENDPOINT", "ROOM", "PARTICIPANT", "TYPE", "EVENT", "ATTEMPTS", "NEXT", "LAST", "ERROR"]
    assert head.split() == heads
    assert row.split()[0] == "pending"
    assert more == "The first 1; --limit shows more."
    wrong = await folder.run("deliveries", "--state", "lost")
    assert wrong.returncode == 2
    assert "lost is none of retrying, parked, dead, pending, delivered" in wrong.stderr


async def test_one_event_with_every_attempt(store: Store, tmp_path: Path) -> None:
    await every_state(store)
    folder = Folder(tmp_path)
    shown = await folder.json("deliveries", "show", event(4), "--endpoint", "crm")
    assert (shown["event_id"], shown["emitted_at"]) == (event(4), "2027-01-15T08:00:00.000Z")
    assert [each["state"] for each in shown["deliveries"]] == ["retrying"]
    assert shown["attempts"] == [
        {
            "at": at,
            "endpoint": "crm",
            "event_id": event(4),
            "type": "stt.speech_started",
            "number": number,
            "stage": "status",
            "status": status,
            "elapsed_ms": 12.5,
            "answer": None,
        }
        for number, status, at in ((1, 429, "2027-01-15T08:12:59.500Z"), (2, 503, "2027-01-15T08:13:00.000Z"))
    ]
    text = (await folder.run("deliveries", "show", event(4))).stdout
    assert "status 503" in text
    gone = await folder.run("deliveries", "show", "evt_none_1")
    assert (gone.returncode, gone.stderr) == (1, "evt_none_1: the log has no such event, or has it no longer\n")


async def test_a_dead_event_is_tried_again(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    folder = Folder(tmp_path)
    outcome = await folder.json("deliveries", "retry", event(3), "--endpoint", "crm")
    assert outcome == {"event_id": event(3), "endpoint": "crm", "outcome": "revived", "waits_for": "relay"}
    nothing = await folder.run("deliveries", "retry", event(1), "--endpoint", "crm")
    assert nothing.returncode == 1
    assert nothing.stdout == "It was delivered, or never to be: there is nothing to try again.\n"
    store.clock.at += 10**12  # the commands go by the machine's clock
    due = await outbox.lanes.claim_parked({"crm": 5}, lease_ms=LEASE_MS)
    assert {each.record.sequence for each in due} == {2, 3}


async def test_a_due_delivery_names_what_keeps_it_from_being_sent(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    folder = Folder(tmp_path)

    async def told(number: int = 4) -> str:
        return (await folder.run("deliveries", "retry", event(number), "--endpoint", "crm")).stdout

    no_relay = "it is due, and sent once a relay runs with crm (none of this user's was found on this machine)\n"
    assert await told(3) == f"It was dead, and has its whole schedule before it; {no_relay}"
    await folder.run("endpoints", "disable", "crm")
    assert await told() == "It is due, and sent once crm is enabled: `speech-relay endpoints enable crm`\n"
    folder.configure(bi={})
    assert await told() == "It is due, and sent once the configuration names crm again\n"
    enabled = await folder.run("endpoints", "enable", "crm")
    assert enabled.stdout.endswith("gets what it has missed once the configuration names crm again\n")
    folder.configure(crm={}, bi={})
    store.clock.at = SystemClock().now_ms() + MINUTE  # the commands go by the machine's clock
    await claim(outbox.lanes, "crm")
    assert await told() == f"A relay had it in hand: unless that settles it, {no_relay}"


async def test_all_dead_events_are_said_to_wait_too(store: Store, tmp_path: Path) -> None:
    await every_state(store, SystemClock().now_ms() - 20 * MINUTE)
    folder = Folder(tmp_path)
    await folder.run("endpoints", "disable", "crm")
    told = await folder.run("deliveries", "retry", "--dead", "--endpoint", "crm")
    assert told.returncode == 0
    assert told.stdout == ("1 dead events are due, and sent once crm is enabled: `speech-relay endpoints enable crm`\n")


async def test_all_dead_events_are_tried_again(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store, SystemClock().now_ms() - 20 * MINUTE)  # it died eight minutes ago
    folder = Folder(tmp_path)
    every = ("deliveries", "retry", "--dead", "--endpoint")
    none = {"retried": 0, "waits_for": None}
    assert await folder.json(*every, "bi") == {"endpoint": "bi", **none}
    assert await folder.json(*every, "crm", "--since", "5m") == {"endpoint": "crm", **none}
    some = {"retried": 1, "waits_for": "relay"}
    assert await folder.json(*every, "crm", "--since", "10m") == {"endpoint": "crm", **some}
    nothing = await folder.run(*every, "crm")
    assert (nothing.returncode, nothing.stdout) == (0, "There are no dead events.\n")
    assert await rows(outbox, dead_letters) == []


async def test_a_retry_that_says_too_little_or_too_much_is_refused(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    folder = Folder(tmp_path)
    for wrong in ((), (event(3), "--dead"), (event(3), "--since", "1h")):
        assert (await folder.run("deliveries", "retry", *wrong, "--endpoint", "crm")).returncode == 2
    bad = await folder.run("deliveries", "retry", "--dead", "--endpoint", "crm", "--since", "soon")
    assert bad.returncode == 2
    assert "write how long ago (30m, 2h, 1d)" in bad.stderr
    assert len(await rows(outbox, dead_letters)) == 1


async def test_attempts_are_told_as_they_are_recorded(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    Folder(tmp_path)
    tailing = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "deliveries", "tail", "--json",
        cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert tailing.stdout is not None
    lane = (await claim(outbox.lanes, "bi"))[0]
    told = b""
    async with asyncio.timeout(30):
        number = 0
        while not told:  # the tail begins where the log ends when it is started, which nobody announces
            number += 1
            tries = (attempt(lane, 1, number, at=number, status=500),)
            await outbox.lanes.settle(Settlement(lane.id, lane.fence, 0, 0, 0, tries=tries))
            try:
                async with asyncio.timeout(0.5):
                    told = await tailing.stdout.readline()
            except TimeoutError:
                continue
        tailing.send_signal(signal.SIGINT)
        assert await tailing.wait() == 0
    line = json.loads(told)
    assert (line["endpoint"], line["event_id"], line["status"]) == ("bi", event(1), 500)


async def test_a_resend_is_counted_by_a_dry_run_and_asked_for_once(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    folder = Folder(tmp_path)
    folder.configure(crm={"events": ["*"]}, bi={"events": ["transcript.*"]})
    since = ("--endpoint", "crm", "--since", "2027-01-15T07:00:00Z", "--until", "2027-01-15T08:00:01Z")
    counted = await folder.json("deliveries", "resend", *since, "--dry-run")
    assert counted == {
        "endpoint": "crm", "dry_run": True, "events": 1, "streams": 1, "pruned": 0, "waits_for": "relay",
    }  # fmt: skip
    assert await rows(outbox, resends) == []
    said = await folder.run("deliveries", "resend", *since)
    assert said.stdout.startswith("1 events of 1 streams are due, and sent once a relay runs with crm")
    assert len(await rows(outbox, resends)) == 1
    for nothing in (("--type", "transcript.*"), ("--room", "lobby")):
        assert (await folder.json("deliveries", "resend", *since, *nothing))["events"] == 0
    unasked = await folder.json("deliveries", "resend", "--endpoint", "bi", *since[2:])
    assert unasked["events"] == 0, "bi does not ask for it"


async def test_a_resend_without_until_sends_what_is_ahead_of_a_clock_set_back(store: Store, tmp_path: Path) -> None:
    ahead = SystemClock().now_ms() + 60 * MINUTE
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1, at=ahead)])
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 1))
    folder = Folder(tmp_path)
    folder.configure(crm={"events": ["*"]})
    asked = await folder.json("deliveries", "resend", "--endpoint", "crm", "--since", "1h")
    assert asked["events"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--endpoint", "crm", "--since", "2099-01-01"), "2099-01-01 00:00:00.000 is not before now, "),
        (("--endpoint", "crm", "--since", "2020-01-02", "--until", "2020-01-01"), "not before --until, 2020-01-01"),
        (("--endpoint", "crm", "--since", "soon"), "is not a time; write how long ago"),
        (("--endpoint", "crm", "--since", "1h", "--until", "2h"), "is not before --until"),
        (("--endpoint", "cmr", "--since", "1h"), "did you mean crm?"),
        (("--endpoint", "crm", "--since", "1h", "--type", "speech.start"), "did you mean speech.started?"),
    ],
)
async def test_a_resend_of_what_there_is_not_says_why(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    refused = await Folder(tmp_path).run("deliveries", "resend", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr


NOW = datetime(2027, 1, 15, 9, 0, 0)  # noqa: DTZ001 - where the operator is


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", datetime(2027, 1, 15, 7)),  # noqa: DTZ001 - as above, and below
        ("08:30", datetime(2027, 1, 15, 8, 30)),  # noqa: DTZ001
        ("8:30:15", datetime(2027, 1, 15, 8, 30, 15)),  # noqa: DTZ001
        ("09:01", datetime(2027, 1, 14, 9, 1)),  # noqa: DTZ001
        ("2027-01-02", datetime(2027, 1, 2)),  # noqa: DTZ001
        ("2027-01-02 14:05", datetime(2027, 1, 2, 14, 5)),  # noqa: DTZ001
        ("2027-01-02T14:05:00Z", datetime(2027, 1, 2, 14, 5, tzinfo=UTC)),
        ("2027-01-02T14:05+02:00", datetime(2027, 1, 2, 12, 5, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_a_clock_or_a_calendar_says_them(text: str, at: datetime) -> None:
    assert moment(text, round(NOW.timestamp() * 1000), option="--since") == round(at.timestamp() * 1000)


async def test_dead_events_are_discarded_for_one_endpoint_or_all(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store, SystemClock().now_ms() - 60 * MINUTE)
    folder = Folder(tmp_path)
    for wrong in ((), ("--dead",), ("--dead", "--all", "--endpoint", "crm"), ("--endpoint", "crm")):
        assert (await folder.run("deliveries", "discard", *wrong)).returncode == 2
    kept = await folder.json("deliveries", "discard", "--dead", "--endpoint", "crm", "--since", "10m")
    assert kept == {"endpoint": "crm", "discarded": 0}
    assert await folder.json("deliveries", "discard", "--dead", "--all") == {"endpoint": None, "discarded": 1}
    assert await rows(outbox, dead_letters) == []
    assert (await folder.run("deliveries", "discard", "--dead", "--all")).stdout == "There are no dead events.\n"
    shown = await folder.json("deliveries", "show", event(3), "--endpoint", "crm")
    assert [each["state"] for each in shown["deliveries"]] == ["settled"]


async def test_the_dead_events_of_every_endpoint_are_tried_again(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store, SystemClock().now_ms() - 60 * MINUTE)
    folder = Folder(tmp_path)
    again = await folder.json("deliveries", "retry", "--dead", "--all")
    assert again == {
        "endpoint": None,
        "retried": 1,
        "endpoints": [{"endpoint": "crm", "retried": 1, "waits_for": "relay"}],
    }
    assert await rows(outbox, dead_letters) == []
    assert (await folder.run("deliveries", "retry", "--dead", "--all", "--endpoint", "crm")).returncode == 2
    assert (await folder.run("deliveries", "retry", event(3), "--all")).returncode == 2


async def test_a_summary_tells_what_keeps_an_endpoints_events_waiting(store: Store, tmp_path: Path) -> None:
    store.clock.at = SystemClock().now_ms() - 39 * MINUTE
    outbox = await every_state(store, store.clock.at - 13 * MINUTE)
    now = SystemClock().now_ms()
    health = Health(
        "crm", now - 39 * MINUTE - 500, None, now - MINUTE, "connect: Connection refused", now + 20 * MINUTE
    )
    await outbox.lanes.note_health([health])
    folder = Folder(tmp_path)
    folder.configure(crm={"events": ["stt.*"]}, bi={"events": ["transcript.*"]})
    lines = (await folder.run("deliveries", "--endpoint", "crm", "--state", "retrying")).stdout.splitlines()
    said = "crm: 4 waiting, connect: Connection refused for 39 min, tried again in 19 min, 1 of them parked, 1 dead"
    assert lines[0] == said
    assert "in 19 min" in lines[3], "not before its endpoint is tried again"
    assert lines[3].endswith("status 503, 39 min ago")
    assert (await folder.run("deliveries", "--endpoint", "bi")).stdout == "No deliveries match.\n"
