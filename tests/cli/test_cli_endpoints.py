"""``endpoints``: how each is doing, and what an operator changes about it."""

from pathlib import Path

import pytest
from standardwebhooks import Webhook

from relay.cli.output.formatting import iso
from relay.clock import SystemClock
from relay.outbox.records import Health
from relay.outbox.schema import lanes
from tests.support.builders import EPOCH_MS, new_stream, run
from tests.support.cli import SECRET, speech_relay
from tests.support.dispatch.receiver import Answer, receiving
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_situation import every_state
from tests.support.outbox.outbox_store import Store, claim, rows


async def test_the_list_tells_how_each_endpoint_is_doing(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    await outbox.lanes.sync_endpoints(["crm", "bi", "old"])
    await outbox.lanes.sync_endpoints(["crm", "bi"])
    await outbox.lanes.note_health([Health("crm", EPOCH_MS, None, EPOCH_MS + 1, "status 503")])
    folder = Folder(tmp_path)
    folder.configure(crm={"events": ["stt.*"]}, bi={}, fresh={})
    listed = (await folder.json("endpoints"))["endpoints"]
    assert {each["name"]: each["state"] for each in listed} == {
        "bi": "enabled",
        "crm": "enabled",
        "fresh": "new",
        "old": "not in config",
    }
    assert listed[1] == {
        "name": "crm",
        "state": "enabled",
        "disabled_because": None,
        "disabled_at": None,
        "failing_since": "2027-01-15T08:00:00.000Z",
        "last_success": None,
        "last_failure": "2027-01-15T08:00:00.001Z",
        "last_error": "status 503",
        "resting_until": None,
        "pending": 3,
        "oldest_pending": "2027-01-15T08:00:00.000Z",
        "retrying": 1,
        "parked": 1,
        "dead": 1,
        "resending": 0,
    }
    shown = await folder.run("endpoints", "list")
    head, _, crm, *_ = shown.stdout.splitlines()
    assert head.split()[:2] == ["ENDPOINT", "STATE"]
    assert crm.split()[:2] == ["crm", "enabled"]
    assert "  status 503, " in crm


async def test_an_endpoint_that_has_a_rest_is_listed_so_until_it_is_over(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    await outbox.lanes.sync_endpoints(["crm", "bi"])
    until = SystemClock().now_ms() + 600_000
    await outbox.lanes.note_health(
        [Health("crm", 1, None, 1, "timeout", until), Health("bi", 1, None, 1, "timeout", EPOCH_MS - 10**11)]
    )
    folder = Folder(tmp_path)
    folder.configure(crm={}, bi={})
    bi, crm = (await folder.json("endpoints"))["endpoints"]
    assert (bi["state"], bi["resting_until"]) == ("enabled", None)
    assert (crm["state"], crm["resting_until"]) == ("resting", iso(until))
    shown = await folder.run("endpoints", "list")
    assert "resting, tried again in 9 min" in shown.stdout


async def test_disabling_and_enabling(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    folder = Folder(tmp_path)
    assert await folder.json("endpoints", "disable", "bi") == {"endpoint": "bi", "changed": True}
    assert await folder.json("endpoints", "disable", "bi") == {"endpoint": "bi", "changed": False}
    assert await claim(outbox.lanes, "bi") == []
    (bi, _) = (await folder.json("endpoints"))["endpoints"]
    assert (bi["state"], bi["disabled_because"]) == ("disabled", "operator")
    enabled = {"endpoint": "bi", "changed": True, "skipped": 0, "waits_for": "relay"}
    assert await folder.json("endpoints", "enable", "bi") == enabled
    again = await folder.run("endpoints", "enable", "bi")
    assert again.stdout.startswith("bi is not disabled: it is sent to once a relay runs with bi (")


async def test_an_endpoint_that_no_relay_has_run_with_is_disabled_before_one_does(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    folder = Folder(tmp_path)
    folder.configure(crm={}, bi={}, fresh={})
    disabled = await folder.run("endpoints", "disable", "fresh")
    assert disabled.stdout.startswith("fresh is disabled: its events are kept until")
    assert (await folder.run("endpoints", "disable", "fresh")).stdout == "fresh is disabled already\n"
    await outbox.lanes.sync_endpoints(["crm", "bi", "fresh"])
    fresh = (await folder.json("endpoints"))["endpoints"][2]
    assert (fresh["name"], fresh["state"], fresh["pending"]) == ("fresh", "disabled", 0)
    await (await outbox.open_stream(new_stream(2))).append(run(2, 1, 1))
    store.clock.at = SystemClock().now_ms() + 10**9  # the commands go by the machine's clock
    assert await claim(outbox.lanes, "fresh") == []
    assert (await folder.json("endpoints", "enable", "fresh"))["changed"]
    assert [lane.cursor for lane in await claim(outbox.lanes, "fresh")] == [0]


async def test_enabling_one_that_no_relay_has_run_with_says_so(store: Store, tmp_path: Path) -> None:
    await every_state(store)
    folder = Folder(tmp_path)
    folder.configure(crm={}, bi={}, fresh={})
    told = await folder.run("endpoints", "enable", "fresh")
    assert told.stdout.startswith("fresh is not disabled: it is sent to once a relay runs with fresh")
    await folder.run("endpoints", "disable", "fresh")
    assert (await folder.json("endpoints", "enable", "fresh"))["waits_for"] == "relay"
    states = {each["name"]: each["state"] for each in (await folder.json("endpoints"))["endpoints"]}
    assert states["fresh"] == "new"


async def test_enabling_from_now_on_says_what_was_skipped(store: Store, tmp_path: Path) -> None:
    outbox = await every_state(store)
    folder = Folder(tmp_path)
    await folder.run("endpoints", "disable", "crm")
    done = await folder.run("endpoints", "enable", "crm", "--skip")
    assert done.stdout == "crm is enabled, and goes on from now: 4 events of the log were skipped\n"
    behind = [row for row in await rows(outbox, lanes) if row[1] == "crm" and row[2] == 1]
    assert [row[3] for row in behind] == [6]


async def test_a_name_that_is_not_there_gets_a_suggestion_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    await every_state(store)
    for arguments in (["endpoints", "disable", "crn"], ["endpoints", "ping", "crn"]):
        done = await Folder(tmp_path).run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "no endpoint is called crn; did you mean crm?\n"


async def test_options_before_the_subcommand_are_refused_and_not_passed_over(tmp_path: Path) -> None:
    done = await Folder(tmp_path).run("endpoints", "--config", "other.yaml", "disable", "crm")
    assert done.returncode == 2


def test_a_relative_log_that_is_looked_for_in_another_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("outbox: {url: 'sqlite:///var/relay.db'}\nendpoints: []\n")
    (tmp_path / "elsewhere").mkdir()
    done = speech_relay("endpoints", "--config", str(tmp_path / "config.yaml"), cwd=tmp_path / "elsewhere")
    assert done.returncode == 1
    assert f"outbox {tmp_path}/elsewhere/var/relay.db: there is no log yet" in done.stderr
    assert "relative to the current folder, not to the configuration's" in done.stderr


@pytest.mark.parametrize(
    "command", ["endpoints", "deliveries", "events", "endpoints disable crm", "purge --yes --room x"]
)
async def test_looking_for_a_log_makes_none(tmp_path: Path, command: str) -> None:
    done = await Folder(tmp_path).run(*command.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"outbox {tmp_path}/relay.db: there is no log yet; `speech-relay run` creates it\n"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    (tmp_path / "relay.db").touch()  # to SQLite a new database
    assert await Folder(tmp_path).run(*command.split()) == done
    assert {path.name: path.stat().st_size > 0 for path in tmp_path.iterdir()} == {
        "config.yaml": True,
        "relay.db": False,
    }


async def test_a_ping_is_signed_and_says_what_came_back(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with receiving() as receiver:
        folder.configure(crm={"url": receiver.url, "events": ["speech.*"]})
        taken = await folder.json("endpoints", "ping", "crm")
        receiver.answer = lambda _: Answer(503)
        refused = await folder.json("endpoints", "ping", "crm", code=1)
        told = await folder.run("endpoints", "ping", "crm")
    first, second, _ = receiver.requests
    event = Webhook(SECRET).verify(first.body, first.headers)
    assert (event["type"], event["data"]) == ("ping", {"endpoint": "crm"})
    assert event["id"] == first.id == taken["event_id"] != second.id
    assert (taken["taken"], taken["stage"], taken["status"], taken["reason"]) == (True, "ok", 200, None)
    assert (refused["taken"], refused["stage"], refused["status"]) == (False, "status", 503)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("crm did not take ping evt_")
    assert told.stderr.endswith(": status 503\n")


async def test_an_unknown_endpoint_is_told_which_are_known(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for command in (("endpoints", "ping", "nobody"), ("trigger", "ping", "--endpoint", "nobody")):
        done = await folder.run(*command)
        assert (done.returncode, done.stderr) == (2, "no endpoint is called nobody; known here: crm, bi\n")
    folder.configure()
    assert (await folder.run("endpoints", "ping", "a")).stderr == ("no endpoint is called a; there are no endpoints\n")
