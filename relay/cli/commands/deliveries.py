"""``speech-relay deliveries``: the state of each event, per endpoint."""

import asyncio
from typing import Annotated

import typer

from relay.cli.commands import redelivery
from relay.cli.commands.redelivery import SinceOption
from relay.cli.group import listing
from relay.cli.interrupt import until_signal
from relay.cli.log import CLOCK
from relay.cli.log import since as beginning
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from relay.cli.output.formatting import (
    ago,
    attempt_shape,
    columns,
    delivery_shape,
    iso,
    local,
    plain,
    write,
    write_line,
)
from relay.cli.relay import operated
from relay.clock import span
from relay.outbox.operator.views import (
    UNDELIVERED,
    AttemptView,
    DeliveryState,
    DeliveryView,
    EndpointView,
    EventDeliveries,
)

group = listing()
for command in (redelivery.retry, redelivery.discard, redelivery.resend):
    group.command()(command)

EndpointOption = Annotated[str | None, typer.Option(help="Only this endpoint's.")]
_STATES = ("retrying", "parked", "dead", "pending", "delivered")


@group.command("list")
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(help="retrying, parked, dead, pending or delivered; without it, all but delivered. Repeatable."),
    ] = None,
    endpoint: EndpointOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number to list.")] = 50,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Undelivered events, or deliveries in the given states."""
    if unknown := set(state or ()) - set(_STATES):
        raise typer.BadParameter(f"{unknown.pop()} is none of {', '.join(_STATES)}", param_hint="--state")
    states = [DeliveryState(each) for each in state] if state else UNDELIVERED
    begin = beginning(since)

    async def look() -> tuple[list[DeliveryView], list[EndpointView]]:
        async with operated(config) as relay:
            found = await relay.deliveries(states, endpoint=endpoint, since=begin, limit=limit)
            views = [view for view, _ in await relay.endpoints()]
            return found, [view for view in views if endpoint in (None, view.state.name)]

    found, views = asyncio.run(look())
    if as_json:
        write({"deliveries": [delivery_shape(view) for view in found]})
        return
    if summary := [line for view in views if (line := _summary(view))]:
        typer.echo("\n".join(summary) + ("\n" if found else ""))
    if found:
        typer.echo(_table(found))
        if len(found) == limit:
            typer.echo(f"\nThe first {limit}; --limit shows more.")
    else:
        typer.echo("No deliveries match.")


@group.command()
def show(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id: its webhook-id.")],
    endpoint: EndpointOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Where an event stands for each endpoint, and every attempt. Exit code 1 if the log does not have it."""

    async def look() -> EventDeliveries | None:
        async with operated(config) as relay:
            return await relay.delivery(event_id, endpoint=endpoint)

    found = asyncio.run(look())
    if found is None:
        typer.echo(f"{event_id}: the log has no such event, or has it no longer", err=True)
        raise typer.Exit(1)
    if as_json:
        write(
            {
                "event_id": found.event.id,
                "type": found.event.type,
                "emitted_at": iso(found.event.emitted_at),
                "deliveries": [delivery_shape(view) for view in found.deliveries],
                "attempts": [attempt_shape(view) for view in found.attempts],
            }
        )
    else:
        typer.echo(_shown(found))


@group.command()
def tail(endpoint: EndpointOption = None, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Attempts as they are recorded. Ends on Ctrl-C."""

    async def watch() -> None:
        async with operated(config) as relay:
            async for attempt in relay.attempted(endpoint):
                write_line(attempt_shape(attempt)) if as_json else typer.echo(_line(attempt))

    asyncio.run(until_signal(watch()))


def _summary(view: EndpointView) -> str:
    """An endpoint's state in one line; empty if nothing waits for it."""
    now, state, waiting = CLOCK.now_ms(), view.state, view.pending + view.parked
    parts = [f"{waiting} waiting"] if waiting else []
    if waiting and state.disabled_at is not None:
        parts.append(f"disabled ({state.disabled_because}) since {local(state.disabled_at)}")
    elif waiting and state.failing_since is not None:
        parts.append(f"{plain(state.last_error)} for {span(max(0, now - state.failing_since))}")
        if state.resting_until is not None and state.resting_until > now:
            parts.append(f"tried again {ago(state.resting_until, now)}")
    parts += [f"{view.parked} of them parked"] if view.parked else []
    parts += [f"{view.dead} dead"] if view.dead else []
    parts += [f"{view.resending} streams being sent again"] if view.resending else []
    return f"{state.name}: {', '.join(parts)}" if parts else ""


def _table(found: list[DeliveryView]) -> str:
    now = CLOCK.now_ms()
    heads = ("STATE", "SINCE", "ENDPOINT", "ROOM", "PARTICIPANT", "TYPE", "EVENT", "ATTEMPTS", "NEXT", "LAST ERROR")
    return columns(
        heads,
        [
            (
                view.state.value,
                ago(view.at, now),
                view.endpoint,
                view.room,
                view.participant,
                view.type,
                view.event_id,
                view.attempts,
                ago(view.next_at, now) if view.next_at is None or view.next_at > now else "now",
                ", ".join(filter(None, (view.reason, ago(view.failed_at, now) if view.reason else ""))),
            )
            for view in found
        ],
    )


def _shown(found: EventDeliveries) -> str:
    event = found.event
    parts = [f"{event.type} {event.id}, appended {local(event.emitted_at)}", _table(list(found.deliveries))]
    if found.attempts:
        tried = [
            (local(each.at), each.endpoint, each.number, _came_to(each), f"{each.elapsed_ms:.0f} ms")
            for each in found.attempts
        ]
        parts.append(columns(("ATTEMPTED", "ENDPOINT", "NUMBER", "OUTCOME", "TOOK"), tried))
        parts += [
            f"{each.endpoint} answered attempt {each.number}: {plain(each.answer)}"
            for each in found.attempts
            if each.answer
        ]
    return "\n\n".join(parts)


def _line(attempt: AttemptView) -> str:
    place = f"{attempt.endpoint:<16} {attempt.type:<22} {attempt.event_id}"
    return f"{local(attempt.at)}  {place}  {_came_to(attempt)}  {attempt.elapsed_ms:.0f} ms  attempt {attempt.number}"


def _came_to(attempt: AttemptView) -> str:
    return attempt.stage if attempt.status is None else f"{attempt.stage} {attempt.status}"
