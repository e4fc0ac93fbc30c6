"""``speech-relay endpoints``: each endpoint's health, and whether it is sent to."""

import asyncio
from typing import Annotated

import typer

from relay.cli.group import listing
from relay.cli.log import CLOCK, configured, known, opened, wanted
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, load_config
from relay.cli.output.delivery_blocker import WaitsFor, once, waits_for
from relay.cli.output.formatting import ago, columns, endpoint_shape, write
from relay.cli.sample import fresh, report, send
from relay.config.models import Config
from relay.outbox.operator.views import EndpointView
from relay.outbox.records import EndpointState

group = listing()

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The endpoint's name in the configuration.")]


@group.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """How each endpoint is doing, and what waits for it."""
    loaded = load_config(config)

    async def look() -> list[EndpointView]:
        async with opened(loaded) as log:
            return await log.inspection.endpoints(wanted=wanted(loaded))

    views = with_new(asyncio.run(look()), loaded)
    now = CLOCK.now_ms()
    states = {view.state.name: state_of(view, loaded, now) for view in views}
    if as_json:
        write({"endpoints": [endpoint_shape(view, states[view.state.name]) for view in views]})
    else:
        typer.echo(_table(views, states, now))


@group.command()
def disable(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Send nothing to an endpoint any more, or not to begin with. Its events are kept until it is enabled."""
    loaded = load_config(config)

    async def change() -> bool:
        async with opened(loaded) as log:
            await known(log, loaded, name)
            await log.endpoints.introduce(name)
            return await log.endpoints.disable(name, "operator")

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
    loaded = load_config(config)

    async def change() -> tuple[int | None, WaitsFor | None]:
        async with opened(loaded) as log:
            await known(log, loaded, name)
            skipped = await log.endpoints.enable(name, replay=not skip)
            return skipped, await waits_for(log, loaded, name)

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
    endpoint = configured(load_config(config), name)
    sample = fresh("ping", endpoint=name)
    raise typer.Exit(report(endpoint, sample, send(endpoint, sample), as_json=as_json))


def with_new(views: list[EndpointView], config: Config) -> list[EndpointView]:
    """Lists configured endpoints that no relay has run with yet, too."""
    there = {view.state.name for view in views}
    new = [EndpointState(each.name, active=False) for each in config.endpoints if each.name not in there]
    return [*views, *(EndpointView(state, 0, None, 0, 0, 0) for state in new)]


def state_of(view: EndpointView, config: Config, now: int) -> str:
    if view.state.disabled_at is not None:
        return "disabled"
    if view.state.resting_until is not None and view.state.resting_until > now:
        return "resting"
    if view.state.active:
        return "enabled"
    named = any(endpoint.name == view.state.name for endpoint in config.endpoints)
    return "new" if named else "not in config"


def _table(views: list[EndpointView], states: dict[str, str], now: int) -> str:
    def described(view: EndpointView) -> str:
        state = states[view.state.name]
        if state == "resting":
            return f"resting, tried again {ago(view.state.resting_until, now)}"
        if view.state.disabled_at is None:
            return state
        return f"disabled ({view.state.disabled_because}) {ago(view.state.disabled_at, now)}"

    heads = ("ENDPOINT", "STATE", "FAILING", "LAST OK", "PENDING", "OLDEST", "RETRYING", "PARKED", "DEAD", "LAST ERROR")
    rows = [
        (
            view.state.name,
            described(view),
            ago(view.state.failing_since, now),
            ago(view.state.succeeded_at, now),
            view.pending,
            ago(view.oldest_pending, now),
            view.retrying,
            view.parked,
            view.dead,
            ", ".join(filter(None, (view.state.last_error, ago(view.state.failed_at, now)))),
        )
        for view in views
    ]
    return columns(heads, rows)
