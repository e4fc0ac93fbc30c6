"""``speech-relay status``: whether a relay runs, its processes, what it hears, and each endpoint's health."""

import asyncio
from typing import Any

import typer

from relay.app.status import is_gone
from relay.cli.log import CLOCK
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from relay.cli.output.fleet import Summary, fleet_lines, process_shape, summary, versions
from relay.cli.output.formatting import ago, endpoint_shape, iso, plain, wrapped, write
from relay.cli.relay import operated
from relay.clock import span
from relay.outbox.log.processes import FleetState, OpenStreams
from relay.outbox.operator.views import EndpointView


def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Whether a relay runs, its processes, the rooms and streams it hears, its load, and how each endpoint is doing.

    Reads the log only, so it also works for a relay in another container that shares the log. Exit code 0 while it
    listens and delivers, and every process that runs is ready; 1 otherwise.
    """

    async def look() -> tuple[FleetState, list[tuple[EndpointView, str]]]:
        async with operated(config) as relay:
            return await relay.fleet(), await relay.endpoints()

    fleet, found = asyncio.run(look())
    views, now = [view for view, _ in found], CLOCK.now_ms()
    whole = summary(fleet, now, is_gone, views)
    if as_json:
        endpoints = [endpoint_shape(view, state) for view, state in found]
        write({**_shape(whole, fleet), "endpoints": endpoints})
    else:
        lines = _lines(whole, fleet, views, now) + _endpoint_lines(found, now)
        typer.echo("\n".join(wrapped(line, indent=11) for line in lines))
    raise typer.Exit(0 if whole.word == "ready" else 1)


def _shape(whole: Summary, fleet: FleetState) -> dict[str, Any]:
    newest, running = whole.newest, whole.running
    listening = [state for state in running if state.role != "dispatch"]
    return {
        "relay": whole.word,
        "running": bool(running),
        "version": newest.version if newest else None,
        "started_at": iso(newest.started_at) if newest else None,
        "ready_at": iso(newest.ready_at) if newest else None,
        "last_seen": iso(newest.seen_at) if newest else None,
        "stopped_at": iso(newest.stopped_at) if newest else None,
        "waits_for": "; ".join(whole.problems) or None,
        "rooms_heard": sum(state.rooms_heard for state in listening) if listening else None,
        "rooms_unheard": sum(state.rooms_unheard for state in listening) if listening else None,
        "streams": fleet.streams.recorded,
        "streams_orphaned": fleet.streams.orphaned,
        "cpu_load": round(max(state.cpu_load for state in listening), 3) if listening else None,
        "cpu_limit": min(state.cpu_limit for state in listening) if listening else None,
        "refusing_rooms": any(state.refusing for state in listening) if listening else None,
        "processes": [process_shape(state, whole.words[state.id], fleet.duties) for state in fleet.processes],
    }


def _lines(whole: Summary, fleet: FleetState, views: list[EndpointView], now: int) -> list[str]:
    lines = [f"relay      {_told(whole, now)}", *(f"           {problem}" for problem in map(plain, whole.problems))]
    if whole.is_fleet and len(versions(whole)) > 1:
        lines.append(f"           versions {', '.join(map(plain, versions(whole)))} run together: finish the update")
    if listening := [state for state in whole.running if state.role != "dispatch"]:
        heard, unheard = sum(s.rooms_heard for s in listening), sum(s.rooms_unheard for s in listening)
        lines.append(f"rooms      {heard} heard, {unheard} unheard")
    lines.append(f"streams    {_recorded(fleet.streams)}")
    if whole.is_fleet:
        lines.append(f"lag        {_lag(views, now)}")
        lines += fleet_lines(whole, fleet.duties, now)
    elif whole.running:
        (service,) = whole.running
        full = ": NEW ROOMS ARE REFUSED" if service.refusing else ""
        lines.append(f"load       {service.cpu_load:.0%} of this machine (limit {service.cpu_limit:.0%}){full}")
    return lines


def _recorded(streams: OpenStreams) -> str:
    orphaned = f", {streams.orphaned} orphaned" if streams.orphaned else ""
    return f"{streams.recorded} open in {streams.rooms} rooms{orphaned}"


def _lag(views: list[EndpointView], now: int) -> str:
    """How long the oldest event has waited that an endpoint in use has not received."""
    waiting = [
        (view.oldest_pending, view.state.name)
        for view in views
        if view.oldest_pending is not None and view.state.active and view.state.disabled_at is None
    ]
    if not waiting:
        return "nothing waits"
    oldest, name = min(waiting)
    return f"{span(max(0, now - oldest))}: the oldest event that waits for {name}"


def _told(whole: Summary, now: int) -> str:
    service, word = whole.newest, whole.word
    if service is None:
        return "NOT RUNNING: none has run with this log yet; `speech-relay run` starts one"
    if word == "stopped":
        return f"NOT RUNNING: stopped {ago(service.stopped_at, now)}"
    if word == "lost":
        return f"NOT RUNNING: it died or hangs, last seen {ago(service.seen_at, now)}"
    text = {"ready": "running", "starting": "starting", "not ready": "running, NOT READY"}[word]
    if whole.is_fleet:
        return f"{text}, {len(whole.running)} processes" if len(whole.running) > 1 else text
    (only,) = whole.running
    return f"{text} for {span(now - only.started_at)}, last seen {ago(only.seen_at, now)} ({only.version})"


def _endpoint_lines(found: list[tuple[EndpointView, str]], now: int) -> list[str]:
    lines = ["endpoints" if found else "endpoints  none: nothing is sent"]
    for view, state in found:
        counts = [f"{view.pending} pending"]
        counts += [f"{count} {word}" for count, word in ((view.parked, "parked"), (view.dead, "dead")) if count]
        if view.state.succeeded_at is not None:
            counts.append(f"last success {ago(view.state.succeeded_at, now)}")
        lines.append(f"  {view.state.name}: {state}, {', '.join(counts)}")
        if view.state.failing_since is not None:
            lines.append(f"    failing since {ago(view.state.failing_since, now)}: {plain(view.state.last_error)}")
    return lines
