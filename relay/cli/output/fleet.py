"""What the processes of a relay are together: whether it works, and why not."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from relay.cli.output.formatting import ago, iso, plain
from relay.clock import span
from relay.outbox.log.processes import Duty, FleetState, ProcessState, Standing, standing
from relay.outbox.operator.views import EndpointView

Word = Standing | Literal["never run"]


@dataclass(frozen=True, slots=True)
class Summary:
    """A relay as one: of a single ``run``, what that process says."""

    word: Word
    running: tuple[ProcessState, ...]
    """The processes that run, the newest first."""
    lost: tuple[ProcessState, ...]
    """Those that died in the last ten minutes."""
    words: Mapping[str, Standing]
    """How each of them stands, by its id."""
    problems: tuple[str, ...]
    """Why the relay is not ready."""
    newest: ProcessState | None
    """The newest that runs, or else the newest that did."""

    @property
    def is_fleet(self) -> bool:
        """Whether it is more, or less, than one process that does everything."""
        return bool(self.running) and [state.role for state in self.running] != ["run"]


def summary(
    fleet: FleetState, now: int, is_gone: Callable[[ProcessState], bool], views: Collection[EndpointView]
) -> Summary:
    """``is_gone``: whether a process is known to have ended, although it does not say so.

    The relay is ready if it listens and delivers, every process that runs is ready, and none that hangs keeps events
    from the others.
    """
    words = {state.id: standing(state, now, gone=is_gone(state)) for state in fleet.processes}
    running = tuple(state for state in fleet.processes if words[state.id] not in ("stopped", "lost"))
    lost = tuple(state for state in fleet.processes if words[state.id] == "lost")
    if not running:
        newest = fleet.newest
        word: Word = "never run" if newest is None else standing(newest, now, gone=is_gone(newest))
        return Summary(word, (), lost, words, (), newest)
    alone = len(running) == 1
    problems = [
        state.waits_for if alone else f"{title(state)}: {state.waits_for}" for state in running if state.waits_for
    ]
    if all(state.role == "dispatch" for state in running):
        problems.append("no worker runs: no room is heard")
    if all(state.role == "worker" for state in running):
        problems.append("no dispatcher runs: events wait in the log")
    problems += differences(running) + unserved(running, views)
    problems += [
        hung(state, fleet.held_up[state.id], now) for state in lost if state.id in fleet.held_up and not is_gone(state)
    ]
    those = {words[state.id] for state in running}
    if those == {"ready"}:
        word = "not ready" if problems else "ready"
    else:
        word = "not ready" if "not ready" in those else "starting"
    return Summary(word, running, lost, words, tuple(problems), running[0])


def differences(running: Collection[ProcessState]) -> list[str]:
    """The endpoints that only some of the dispatchers have in their configuration, and which of them do not."""
    sending = [state for state in running if state.role != "worker"]
    every = sorted({name for state in sending for name in state.endpoints})
    without = {name: [title(state) for state in sending if name not in state.endpoints] for name in every}
    return [
        f"endpoint {name} is not in the configuration of {', '.join(them)}: give all dispatchers the same"
        for name, them in without.items()
        if them
    ]


def unserved(running: Collection[ProcessState], views: Collection[EndpointView]) -> list[str]:
    """The endpoints that the log has events for, and that no dispatcher has in its configuration."""
    sending = [state for state in running if state.role != "worker"]
    served = {name for state in sending for name in state.endpoints}
    return [
        f"endpoint {view.state.name} is in no dispatcher's configuration: nothing is sent to it; SIGHUP one of them to"
        " remove it"
        for view in views
        if sending and view.state.active and not view.state.by_api and view.state.name not in served
    ]


def hung(state: ProcessState, held_up: int, now: int) -> str:
    """A dispatcher that does not report any more, and holds lanes that have something to send."""
    lanes = f"{held_up} lanes" if held_up > 1 else "a lane"
    return (
        f"{title(state)} hangs, or its machine is lost, last seen {ago(state.seen_at, now)}: until its leases end it"
        f" keeps {lanes} with events to send from the others; if it still runs, kill it"
    )


def title(state: ProcessState) -> str:
    """A process as an operator finds it."""
    return f"{state.role} {host(state)}/{state.pid}"


def host(state: ProcessState) -> str:
    """The machine's name, without what tells its containers apart."""
    return plain(state.host.partition(" ")[0])


def fleet_lines(whole: Summary, duties: Mapping[Duty, str], now: int) -> list[str]:
    """The processes for people, one or two lines each."""
    lines = [f"processes  {_counted(whole)}"]
    for state in (*whole.running, *whole.lost):
        word = whole.words[state.id]
        if word == "lost":
            lines.append(f"  {title(state)}: LOST, last seen {ago(state.seen_at, now)} ({plain(state.version)})")
            continue
        does = [f"{'NOT READY' if word == 'not ready' else word} for {span(now - state.started_at)}"]
        if state.role != "dispatch":
            full = ": NEW ROOMS ARE REFUSED" if state.refusing else ""
            does += [f"{state.jobs} rooms", f"load {state.cpu_load:.0%} (limit {state.cpu_limit:.0%}){full}"]
        if state.role != "worker":
            does.append(f"{state.lanes} lanes")
        does += [f"has the {duty}" for duty, owner in duties.items() if owner == state.id]
        lines.append(
            f"  {title(state)}: {', '.join(does)}, last seen {ago(state.seen_at, now)} ({plain(state.version)})"
        )
        if state.waits_for:
            lines.append(f"    {plain(state.waits_for)}")
    return lines


def versions(whole: Summary) -> Sequence[str]:
    """The versions that run, sorted."""
    return sorted({state.version for state in whole.running})


def process_shape(state: ProcessState, word: Standing, duties: Mapping[Duty, str]) -> dict[str, Any]:
    return {
        "id": state.id,
        "role": state.role,
        "state": word,
        "host": host(state),
        "pid": state.pid,
        "version": state.version,
        "started_at": iso(state.started_at),
        "ready_at": iso(state.ready_at),
        "last_seen": iso(state.seen_at),
        "waits_for": state.waits_for or None,
        "rooms": state.jobs,
        "lanes": state.lanes,
        "cpu_load": round(state.cpu_load, 3),
        "cpu_limit": state.cpu_limit,
        "refusing_rooms": state.refusing,
        "duties": [duty for duty, owner in duties.items() if owner == state.id],
    }


def _counted(whole: Summary) -> str:
    names = {"run": "relays", "worker": "workers", "dispatch": "dispatchers"}
    counts = {role: sum(state.role == role for state in whole.running) for role in names}
    told = [f"{count} {names[role] if count != 1 else names[role][:-1]}" for role, count in counts.items() if count]
    return ", ".join([*told, *([f"{len(whole.lost)} lost"] if whole.lost else [])])
