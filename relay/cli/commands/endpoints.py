"""``speech-relay endpoints``: each endpoint's health, and whether it is sent to."""

import asyncio
from typing import Annotated

import typer

from relay.cli.group import listing
from relay.cli.log import CLOCK
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from relay.cli.output.delivery_blocker import WaitsFor, once
from relay.cli.output.formatting import ago, columns, endpoint_shape, write
from relay.cli.relay import operated
from relay.cli.sample import report
from relay.dispatch.http.outcome import Outcome
from relay.outbox.operator.views import EndpointView

group = listing()

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The endpoint's name in the configuration.")]


@group.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """How each endpoint is doing, and what waits for it."""

    async def look() -> list[tuple[EndpointView, str]]:
        async with operated(config) as relay:
            return await relay.endpoints()

    found = asyncio.run(look())
    if as_json:
        write({"endpoints": [endpoint_shape(view, state) for view, state in found]})
    else:
        typer.echo(_table(found, CLOCK.now_ms()))


@group.command()
def disable(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Send nothing to an endpoint any more, or not to begin with. Its events are kept until it is enabled."""

    async def change() -> bool:
        async with operated(config) as relay:
            return await relay.disable(name)

    changed = asyncio.run(change())
    if as_json:
        write({"endpoint": name, "changed": changed})
    elif changed:
        typer.echo(f"{name} is disabled: its events are kept until `speech-relay endpoints enable {name}`")
    else:
        typer.echo(f"{name} is disabled already")


@group.command()
def enable(
    name: NameArgument,
    skip: Annotated[
        bool, typer.Option("--skip", help="Go on from now: what it has missed is never sent to it.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send to an endpoint again: first what it has missed, in order."""

    async def change() -> tuple[int | None, WaitsFor | None]:
        async with operated(config) as relay:
            return await relay.enable(name, skip=skip)

    skipped, waiting = asyncio.run(change())
    then = f" {once(waiting, name)}" if waiting else ""
    if as_json:
        write(
            {
                "endpoint": name,
                "changed": skipped is not None,
                "skipped": skipped or 0,
                "waits_for": waiting.value if waiting else None,
            }
        )
    elif skipped is None:
        typer.echo(f"{name} is not disabled" + (f": it is sent to{then}" if waiting else ""))
    elif skip:
        typer.echo(f"{name} is enabled, and goes on from now: {skipped} events of the log were skipped")
    else:
        typer.echo(f"{name} is enabled, and gets what it has missed{then}")


@group.command()
def ping(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Send a signed ping now, past the log, and say what comes back. Exit code 1 when it was not taken."""

    async def send() -> tuple[str, Outcome]:
        async with operated(config) as relay:
            return await relay.ping(name)

    event_id, outcome = asyncio.run(send())
    raise typer.Exit(report(name, event_id, "ping", outcome, as_json=as_json))


@group.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of an endpoint that was made over the API.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Remove an endpoint that was made over the HTTP API. What it has not received is dropped."""

    async def change() -> None:
        async with operated(config) as relay:
            await relay.remove(name)

    asyncio.run(change())
    if as_json:
        write({"endpoint": name, "removed": True})
    else:
        typer.echo(f"{name} is removed: what it has not received is dropped")


def _table(found: list[tuple[EndpointView, str]], now: int) -> str:
    def described(view: EndpointView, state: str) -> str:
        if state == "resting":
            return f"resting, tried again {ago(view.state.resting_until, now)}"
        if view.state.disabled_at is None:
            return state
        return f"disabled ({view.state.disabled_because}) {ago(view.state.disabled_at, now)}"

    heads = ("ENDPOINT", "STATE", "FAILING", "LAST OK", "PENDING", "OLDEST", "RETRYING", "PARKED", "DEAD", "LAST ERROR")
    rows = [
        (
            view.state.name,
            described(view, state),
            ago(view.state.failing_since, now),
            ago(view.state.succeeded_at, now),
            view.pending,
            ago(view.oldest_pending, now),
            view.retrying,
            view.parked,
            view.dead,
            ", ".join(filter(None, (view.state.last_error, ago(view.state.failed_at, now)))),
        )
        for view, state in found
    ]
    return columns(heads, rows)
