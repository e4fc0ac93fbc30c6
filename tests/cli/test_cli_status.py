"""``status``: one glance at a relay, from its log alone; a relay that does not run never looks alive."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.app.status import Figures, StatusReports, this_host
from relay.cli.output.fleet import summary
from relay.clock import SystemClock
from relay.outbox.log.processes import FleetState, OpenStreams, ProcessState, standing
from relay.outbox.operator.views import EndpointView
from relay.outbox.outbox import Outbox
from relay.outbox.records import EndpointState, Health
from tests.support.builders import dead_pid, process, run, track
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_store import sqlite

CLOCK = SystemClock()
BUSY = Figures((), rooms_heard=3, rooms_unheard=1, cpu_load=0.45, cpu_limit=0.7, endpoints=("crm", "bi"))


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    async with sqlite(tmp_path) as store:
        store.clock = CLOCK  # type: ignore[assignment]  # commands go by real time
        yield await store.open()


def state(**changed: object) -> ProcessState:
    """A relay on this machine."""
    return process("this", "run", **{"host": this_host(), "pid": os.getpid(), **changed})


async def test_a_relay_that_runs_is_seen_with_its_figures(outbox: Outbox, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.configure(crm={"events": ["*"]}, bi={})
    await outbox.lanes.sync_endpoints(["crm"])
    await outbox.open_stream(track(1, "alice", "support-1"))
    log = await outbox.open_stream(track(2, "bob", "support-2"))
    await log.append(run(2, 1, 3))
    await outbox.lanes.note_health([Health("crm", CLOCK.now_ms() - 60_000, None, CLOCK.now_ms(), "status 503")])
    async with StatusReports(outbox, CLOCK, lambda: BUSY, process="this") as reports:
        await reports.ready()
        done = await folder.run("status")
        shown = await folder.json("status")
    assert done.returncode == 0, done.stderr
    for told in (
        "relay      running for ",
        "rooms      3 heard, 1 unheard",
        "streams    2 open in 2 rooms",
        "load       45% of this machine (limit 70%)",
        "  crm: enabled, 3 pending",
        "    failing since 1 min ago: status 503",
        "  bi: new, 0 pending",
    ):
        assert told in done.stdout
    assert (shown["relay"], shown["running"], shown["rooms_heard"], shown["rooms_unheard"]) == ("ready", True, 3, 1)
    assert (shown["streams"], shown["streams_orphaned"], shown["cpu_load"], shown["waits_for"]) == (2, 0, 0.45, None)
    assert [endpoint["name"] for endpoint in shown["endpoints"]] == ["crm", "bi"]


async def test_a_relay_that_stopped_in_order_is_not_running(outbox: Outbox, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with StatusReports(outbox, CLOCK, lambda: BUSY, process="this") as reports:
        await reports.ready()
    done = await folder.run("status")
    assert done.returncode == 1
    assert done.stdout.startswith("relay      NOT RUNNING: stopped ")
    assert "rooms" not in done.stdout.replace("in 0 rooms", "")
    shown = await folder.json("status", code=1)
    assert (shown["relay"], shown["running"], shown["rooms_heard"], shown["cpu_load"]) == ("stopped", False, None, None)


async def test_a_relay_that_was_killed_is_not_running_at_once(outbox: Outbox, tmp_path: Path) -> None:
    await outbox.note_process(state(pid=dead_pid()))
    done = await Folder(tmp_path).run("status")
    assert (done.returncode, "NOT RUNNING: it died or hangs, last seen" in done.stdout) == (1, True)
    assert "3 heard" not in done.stdout


def test_a_relay_of_another_host_is_lost_once_it_is_silent() -> None:
    there = state(host="elsewhere", pid=dead_pid())
    assert standing(there, there.seen_at + 6_000) == "ready"
    assert standing(there, there.seen_at + 6_001) == "lost"


async def test_a_relay_that_waits_says_for_what_and_exits_1(outbox: Outbox, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await outbox.note_process(state(ready_at=None, waits_for="the LiveKit server does not answer"))
    done = await folder.run("status")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith("relay      starting for 2 h")
    assert done.stdout.splitlines()[1] == "           the LiveKit server does not answer"
    await outbox.note_process(state(waits_for="not registered with the LiveKit server"))
    shown = await folder.json("status", code=1)
    assert (shown["relay"], shown["waits_for"]) == ("not ready", "not registered with the LiveKit server")


async def test_a_machine_that_refuses_rooms_is_told(outbox: Outbox, tmp_path: Path) -> None:
    await outbox.note_process(state(cpu_load=0.93, refusing=True, waits_for="this machine is 93% busy"))
    done = await Folder(tmp_path).run("status")
    assert "load       93% of this machine (limit 70%): NEW ROOMS ARE REFUSED" in done.stdout


async def test_a_log_that_no_relay_has_run_with_says_so(outbox: Outbox, tmp_path: Path) -> None:
    done = await Folder(tmp_path).run("status")
    assert (done.returncode, "NOT RUNNING: none has run with this log yet" in done.stdout) == (1, True)


async def test_streams_of_a_process_that_is_gone_are_not_counted_as_heard(outbox: Outbox, tmp_path: Path) -> None:
    log = await outbox.open_stream(track(1, "alice"))
    await outbox.give_up(log.id)
    shown = await Folder(tmp_path).json("status", code=1)
    assert (shown["streams"], shown["streams_orphaned"]) == (0, 1)


async def test_without_a_log_status_exits_1_and_makes_none(tmp_path: Path) -> None:
    done = await Folder(tmp_path).run("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no log yet" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


async def test_a_log_that_cannot_be_looked_at_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"outbox: {{url: 'sqlite:///{tmp_path}/{'a' * 300}'}}")
    for command in ("status", "endpoints", "deliveries", "events"):
        result = await Folder(tmp_path, configured=True).run(command)
        assert result.returncode == 2
        assert result.stderr.startswith("outbox ")
        assert result.stderr.endswith("File name too long: correct outbox.url\n")


async def test_a_fleet_is_seen_with_what_each_process_does(outbox: Outbox, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.configure(crm={"events": ["*"]})
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(track(1, "alice", "support-1"))
    await log.append(run(1, 1, 3))
    for one in (
        process("ears", "worker", version="2"),
        process("more-ears", "worker", rooms_heard=0, rooms_unheard=0, cpu_load=0.93, refusing=True, jobs=1),
        process("mouth", "dispatch", lanes=12, waits_for="the log is slow"),
        process("gone", seen_at=CLOCK.now_ms() - 60_000),
        process("stopped", "run", stopped_at=CLOCK.now_ms()),
    ):
        await outbox.note_process(one)
    assert await outbox.hold_duty("coverage", "ears", for_ms=600_000)
    done = await folder.run("status")
    shown = await folder.json("status", code=1)
    assert done.returncode == 1, "one of them is not ready"
    for told in (
        "relay      running, NOT READY, 3 processes\n",
        "           dispatch mouth.example/7: the log is slow\n",
        "           versions 1, 2 run together: finish the update\n",
        "rooms      3 heard, 1 unheard\n",
        "lag        ",
        ": the oldest event that waits for crm\n",
        "processes  2 workers, 1 dispatcher, 1 lost\n",
        "  worker ears.example/7: ready for 2 h, 3 rooms, load 45% (limit 70%), has the coverage, last seen ",
        "  worker more-ears.example/7: ready for 2 h, 1 rooms, load 93% (limit 70%): NEW ROOMS ARE REFUSED, last seen ",
        "  dispatch mouth.example/7: NOT READY for 2 h, 12 lanes, last seen ",
        "    the log is slow\n",
        "  worker gone.example/7: LOST, last seen ",
        "  crm: enabled, 3 pending",
    ):
        assert told in done.stdout
    assert "stopped.example" not in done.stdout
    assert (shown["relay"], shown["rooms_heard"], shown["refusing_rooms"]) == ("not ready", 3, True)
    by_id = {process["id"]: process for process in shown["processes"]}
    assert {name: process["state"] for name, process in by_id.items()} == {
        "ears": "ready",
        "more-ears": "ready",
        "mouth": "not ready",
        "gone": "lost",
    }
    assert (by_id["ears"]["duties"], by_id["ears"]["host"], by_id["mouth"]["lanes"]) == (
        ["coverage"],
        "ears.example",
        12,
    )


async def test_rooms_are_counted_only_where_a_process_listens(outbox: Outbox, tmp_path: Path) -> None:
    await outbox.note_process(process("mouth", "dispatch", rooms_heard=0, rooms_unheard=0))
    folder = Folder(tmp_path)
    assert "rooms  " not in (await folder.run("status")).stdout
    shown = await folder.json("status", code=1)
    assert (shown["rooms_heard"], shown["rooms_unheard"], shown["cpu_load"], shown["refusing_rooms"]) == (None,) * 4


@pytest.mark.parametrize(
    ("processes", "word", "problem"),
    [
        ([process("a", "worker"), process("b", "dispatch")], "ready", None),
        ([process("a", "worker"), process("b", "run")], "ready", None),
        ([process("a", "run"), process("b", "run")], "ready", None),
        ([process("a", "worker")], "not ready", "no dispatcher runs: events wait in the log"),
        ([process("a", "dispatch")], "not ready", "no worker runs: no room is heard"),
        ([process("a", "run"), process("b", "worker", ready_at=None)], "starting", None),
        (
            [process("a", "run"), process("b", "worker", waits_for="it is stopping")],
            "not ready",
            "worker b.example/7: it is stopping",
        ),
        ([process("a", "run"), process("b", "worker", seen_at=CLOCK.now_ms() - 60_000)], "ready", None),
        ([process("a", "run", seen_at=CLOCK.now_ms() - 60_000)], "lost", None),
        (
            [process("a", "run"), process("b", "dispatch", endpoints=())],
            "not ready",
            "endpoint crm is not in the configuration of dispatch b.example/7: give all dispatchers the same",
        ),
        (
            [process("a", "run", endpoints=())],
            "not ready",
            "endpoint crm is in no dispatcher's configuration: nothing is sent to it; SIGHUP one of them to remove it",
        ),
    ],
)
def test_a_fleet_is_ready_if_it_listens_delivers_and_all_of_it_is_ready(
    processes: list[ProcessState], word: str, problem: str | None
) -> None:
    fleet = FleetState(processes[0], tuple(processes), {}, OpenStreams(0, 0, 0), {})
    now = max(one.started_at for one in processes) + 7_200_000
    crm = EndpointView(EndpointState("crm", active=True), pending=1)
    whole = summary(fleet, now, lambda _: False, [crm])
    assert (whole.word, list(whole.problems)) == (word, [problem] if problem else [])


@pytest.mark.parametrize(("is_gone", "held_up", "ready"), [(False, 3, False), (False, 0, True), (True, 3, True)])
def test_a_lost_dispatcher_is_a_problem_while_it_keeps_lanes_from_others(
    is_gone: bool, held_up: int, ready: bool
) -> None:
    now = CLOCK.now_ms()
    hung = process("b", "dispatch", seen_at=now - 60_000)
    fleet = FleetState(hung, (hung, process("a", "run")), {}, OpenStreams(0, 0, 0), {"b": held_up} if held_up else {})
    whole = summary(fleet, now, lambda state: is_gone and state is hung, [])
    assert (whole.word == "ready") is ready
    assert [problem.partition(":")[0] for problem in whole.problems] == (
        [] if ready else ["dispatch b.example/7 hangs, or its machine is lost, last seen 1 min ago"]
    )
