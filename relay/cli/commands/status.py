"""``speech-relay status``: whether a relay runs, what it hears, and each endpoint's health."""

import asyncio
from typing import Any

import typer

from relay.app.status import is_running
from relay.cli.log import CLOCK
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from relay.cli.output.formatting import ago, endpoint_shape, iso, plain, wrapped, write
from relay.cli.relay import operated
from relay.clock import span
from relay.outbox.log.processes import OpenStreams, ProcessState
from relay.outbox.operator.views import EndpointView


def command(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Whether a relay runs, the rooms and streams it hears, its load, and how each endpoint is doing.

    Reads the log only, so it also works for a relay in another container that shares the log. Exit code 0 while a
    relay runs and is ready, 1 otherwise.
    """

    async def look() -> tuple[ProcessState | None, OpenStreams, list[tuple[EndpointView, str]]]:
        async with operated(config) as relay:
            service, streams = await relay.service()
            return service, streams, await relay.endpoints()

    service, streams, found = asyncio.run(look())
    views, now = [view for view, _ in found], CLOCK.now_ms()
    states = {view.state.name: state for view, state in found}
    running = service is not None and is_running(service, now)
    standing = _standing(service, running=running)
    if as_json:
        endpoints = [endpoint_shape(view, states[view.state.name]) for view in views]
        write({**_shape(service, streams, standing, running=running), "endpoints": endpoints})
    else:
        lines = _lines(service, streams, standing, now, running=running)
        lines += _endpoint_lines(views, states, now)
        typer.echo("\n".join(wrapped(line, indent=11) for line in lines))
    raise typer.Exit(0 if standing == "ready" else 1)


def _standing(service: ProcessState | None, *, running: bool) -> str:
    """ready, starting, not ready, stopped, lost, or never run."""
    if service is None:
        return "never run"
    if not running:
        return "lost" if service.stopped_at is None else "stopped"
    if service.ready_at is None:
        return "starting"
    return "not ready" if service.waits_for else "ready"


def _shape(service: ProcessState | None, streams: OpenStreams, standing: str, *, running: bool) -> dict[str, Any]:
    live = service if running else None
    return {
        "relay": standing,
        "running": running,
        "version": service.version if service else None,
        "started_at": iso(service.started_at) if service else None,
        "ready_at": iso(service.ready_at) if service else None,
        "last_seen": iso(service.seen_at) if service else None,
        "stopped_at": iso(service.stopped_at) if service else None,
        "waits_for": (live.waits_for or None) if live else None,
        "rooms_heard": live.rooms_heard if live else None,
        "rooms_unheard": live.rooms_unheard if live else None,
        "streams": streams.recorded,
        "streams_orphaned": streams.orphaned,
        "cpu_load": round(live.cpu_load, 3) if live else None,
        "cpu_limit": live.cpu_limit if live else None,
        "refusing_rooms": live.refusing if live else None,
    }


def _lines(service: ProcessState | None, streams: OpenStreams, standing: str, now: int, *, running: bool) -> list[str]:
    lines = [f"relay      {_told(service, standing, now)}"]
    if service is not None and running:
        if service.waits_for:
            lines.append(f"           {service.waits_for}")
        lines.append(f"rooms      {service.rooms_heard} heard, {service.rooms_unheard} unheard")
    recorded = f"{streams.recorded} open in {streams.rooms} rooms"
    if streams.orphaned:
        recorded += f", {streams.orphaned} orphaned"
    lines.append(f"streams    {recorded}")
    if service is not None and running:
        full = ": NEW ROOMS ARE REFUSED" if service.refusing else ""
        lines.append(f"load       {service.cpu_load:.0%} of this machine (limit {service.cpu_limit:.0%}){full}")
    return lines


def _told(service: ProcessState | None, standing: str, now: int) -> str:
    if service is None:
        return "NOT RUNNING: none has run with this log yet; `speech-relay run` starts one"
    if standing == "stopped":
        return f"NOT RUNNING: stopped {ago(service.stopped_at, now)}"
    if standing == "lost":
        return f"NOT RUNNING: it died or hangs, last seen {ago(service.seen_at, now)}"
    word = {"ready": "running", "starting": "starting", "not ready": "running, NOT READY"}[standing]
    return f"{word} for {span(now - service.started_at)}, last seen {ago(service.seen_at, now)} ({service.version})"


def _endpoint_lines(views: list[EndpointView], states: dict[str, str], now: int) -> list[str]:
    lines = ["endpoints  none" if not views else "endpoints"]
    for view in views:
        counts = [f"{view.pending} pending"]
        counts += [f"{count} {word}" for count, word in ((view.parked, "parked"), (view.dead, "dead")) if count]
        if view.state.succeeded_at is not None:
            counts.append(f"last success {ago(view.state.succeeded_at, now)}")
        lines.append(f"  {view.state.name}: {states[view.state.name]}, {', '.join(counts)}")
        if view.state.failing_since is not None:
            lines.append(f"    failing since {ago(view.state.failing_since, now)}: {plain(view.state.last_error)}")
    return lines
