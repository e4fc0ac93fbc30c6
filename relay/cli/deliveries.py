"""``speech-relay deliveries``: what became of each event, endpoint by endpoint."""

from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.group import listing
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from relay.cli.due import WaitsFor
    from relay.config.endpoint import Endpoint
    from relay.config.models import Config
    from relay.outbox.access import Log
    from relay.outbox.control import Retried
    from relay.outbox.resends import Resend
    from relay.outbox.views import AttemptView, DeliveryView, EventDeliveries, Wanted

group = listing()

EndpointOption = Annotated[str | None, typer.Option(help="Only this endpoint's.")]
SinceOption = Annotated[
    str | None, typer.Option(help="Only what is in its state for no longer: 30m, 2h, 14:05, 2026-11-21T14:05.")
]
_STATES = ("retrying", "parked", "dead", "pending", "delivered")


@group.command("list")
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(help="retrying, parked, dead, pending or delivered; without it, all but delivered. Repeatable."),
    ] = None,
    endpoint: EndpointOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """What is not delivered, or what is in a state."""
    import asyncio

    from relay.cli.log import known, opened
    from relay.cli.log import since as moment
    from relay.cli.options import load_config
    from relay.cli.shapes import delivery_shape, write
    from relay.outbox.views import UNDELIVERED, DeliveryState

    if unknown := set(state or ()) - set(_STATES):
        raise typer.BadParameter(f"{unknown.pop()} is none of {', '.join(_STATES)}", param_hint="--state")
    states = [DeliveryState(each) for each in state] if state else UNDELIVERED
    loaded, begin = load_config(config), moment(since)

    async def look() -> "list[DeliveryView]":
        async with opened(loaded) as log:
            name = await known(log, loaded, endpoint)
            return await log.inspection.deliveries(
                states, wanted=_wanted(loaded), endpoint=name, since=begin, limit=limit
            )

    found = asyncio.run(look())
    if as_json:
        write({"deliveries": [delivery_shape(view) for view in found]})
    elif found:
        typer.echo(_table(found))
        if len(found) == limit:
            typer.echo(f"\nThe first {limit}; --limit shows more.")
    else:
        typer.echo("There is none.")


@group.command()
def show(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id: its webhook-id.")],
    endpoint: EndpointOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Where an event stands for each endpoint, and every attempt. Exit code 1 where the log does not have it."""
    import asyncio

    from relay.cli.log import known, opened
    from relay.cli.options import load_config
    from relay.cli.shapes import attempt_shape, delivery_shape, iso, write

    loaded = load_config(config)

    async def look() -> "EventDeliveries | None":
        async with opened(loaded) as log:
            return await log.inspection.delivery(event_id, endpoint=await known(log, loaded, endpoint))

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
def retry(
    endpoint: Annotated[str, typer.Option(help="The endpoint to send to.")],
    event_id: Annotated[str | None, typer.Argument(metavar="EVENT_ID", help="The event's id.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Every dead event of the endpoint.")] = False,
    since: SinceOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Have a failed event tried again now, or with --dead every dead one. A dead one has its whole schedule again.

    Says what has to happen first where the endpoint is not sent to now. Exit code 1 where the event was delivered
    already, or its content is gone, or the log does not have it; with --dead it is 0, whether there is one or not.
    """
    import asyncio

    from relay.cli.log import since as moment
    from relay.cli.options import load_config

    if (event_id is None) != dead:
        raise typer.BadParameter("give an EVENT_ID or --dead, one of them", param_hint="deliveries retry")
    if since is not None and not dead:
        raise typer.BadParameter("goes with --dead", param_hint="--since")
    loaded, begin = load_config(config), moment(since)
    if event_id is None:
        asyncio.run(_retry_dead(loaded, endpoint, begin, as_json=as_json))
    else:
        raise typer.Exit(asyncio.run(_retry_one(loaded, event_id, endpoint, as_json=as_json)))


@group.command()
def resend(
    endpoint: Annotated[str, typer.Option(help="The endpoint to send to.")],
    since: Annotated[str, typer.Option(help="What was emitted since: 2h, 14:05, 2026-11-21T14:05.")],
    until: Annotated[str | None, typer.Option(help="What was emitted before; without it, all until now.")] = None,
    of_type: Annotated[str, typer.Option("--type", metavar="GLOB", help="Only such types: transcript.*")] = "*",
    room: Annotated[str, typer.Option(metavar="GLOB", help="Only rooms of such a name.")] = "*",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send again what an endpoint has got already: the same ids and bytes, in order, with `relay-resend: true`.

    Only what the endpoint asks for, and what lasts: no interims. What is pending, parked or dead is not part of it.
    Works beside a running relay, which sends it along with what is new.
    """
    import asyncio

    from relay.cli.log import CLOCK, configured, event_types, moment, opened
    from relay.cli.options import load_config
    from relay.outbox.resends import Resend

    loaded, now = load_config(config), CLOCK.now_ms()
    destination = configured(loaded, endpoint)
    begin, end = moment(since, now, option="--since"), now if until is None else moment(until, now, option="--until")
    if begin >= end:
        raise typer.BadParameter("is not before --until", param_hint="--since")
    asked = Resend(endpoint, begin, end, event_types(of_type))

    async def send() -> None:
        async with opened(loaded) as log:
            await _resend(log, loaded, destination, asked, room, dry_run=dry_run, as_json=as_json)

    asyncio.run(send())


@group.command()
def tail(endpoint: EndpointOption = None, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Attempts as they are recorded. Ends on Ctrl-C."""
    import asyncio

    from relay.cli.log import follow, known, opened
    from relay.cli.options import load_config
    from relay.cli.shapes import attempt_shape, write_line

    loaded = load_config(config)

    async def watch() -> None:
        async with opened(loaded) as log:
            name = await known(log, loaded, endpoint)
            newest = await log.inspection.newest_attempt()

            async def look() -> None:
                nonlocal newest
                for attempt in await log.inspection.attempts(behind=newest, endpoint=name):
                    newest = attempt.n
                    write_line(attempt_shape(attempt)) if as_json else typer.echo(_line(attempt))

            await follow(look)

    asyncio.run(watch())


async def _retry_one(config: "Config", event_id: str, endpoint: str, *, as_json: bool) -> int:
    from relay.cli.due import waits_for
    from relay.cli.log import known, opened
    from relay.cli.shapes import write
    from relay.outbox.control import Retried

    async with opened(config) as log:
        await known(log, config, endpoint)
        retried = await log.control.retry(event_id, endpoint)
        due = retried in (Retried.REVIVED, Retried.HASTENED, Retried.UNDER_WAY)
        waiting = await waits_for(log, config, endpoint) if due else None
    if as_json:
        outcome = {"event_id": event_id, "endpoint": endpoint, "outcome": retried.value}
        write({**outcome, "waits_for": waiting.value if waiting else None})
    else:
        typer.echo(_told(retried, waiting, endpoint))
    return 1 if retried in (Retried.UNKNOWN, Retried.SETTLED, Retried.EMPTIED) else 0


async def _retry_dead(config: "Config", endpoint: str, begin: int, *, as_json: bool) -> None:
    from relay.cli.due import waits_for
    from relay.cli.log import known, opened
    from relay.cli.shapes import write

    total = 0
    async with opened(config) as log:
        await known(log, config, endpoint)
        async for revived in log.control.retry_dead(endpoint, since=begin):
            total += revived
            if not as_json:
                typer.echo(f"{total} …", err=True)
        waiting = await waits_for(log, config, endpoint) if total else None
    if as_json:
        write({"endpoint": endpoint, "retried": total, "waits_for": waiting.value if waiting else None})
    else:
        typer.echo(f"{total} dead events are {_tried(waiting, endpoint)}" if total else "There is none.")


async def _resend(
    log: "Log", config: "Config", endpoint: "Endpoint", asked: "Resend", room: str, *, dry_run: bool, as_json: bool
) -> None:
    from dataclasses import replace
    from datetime import timedelta
    from fnmatch import fnmatchcase

    from relay.cli.columns import local
    from relay.cli.due import waits_for
    from relay.cli.log import CLOCK
    from relay.cli.shapes import write
    from relay.dispatch.subscription import Subscription

    subscription = Subscription(endpoint)
    resent = await log.control.resend(
        replace(asked, types=[each for each in asked.types if subscription.wants_type(each)]),
        lambda name, identity: fnmatchcase(name, room) and subscription.wants_stream(name, identity),
        dry_run=dry_run,
    )
    waiting = await waits_for(log, config, endpoint.name) if resent.events else None
    kept_since = CLOCK.now_ms() - config.outbox.retention // timedelta(milliseconds=1)
    if as_json:
        write(
            {
                "endpoint": endpoint.name,
                "dry_run": dry_run,
                "events": resent.events,
                "streams": resent.streams,
                "pruned": resent.pruned,
                "waits_for": waiting.value if waiting else None,
            }
        )
        return
    count = f"{resent.events} events of {resent.streams} streams"
    if not resent.events:
        typer.echo(f"Nothing that {endpoint.name} has got and asks for matches.")
    elif dry_run:
        typer.echo(f"{count} would be sent to {endpoint.name} again.")
    else:
        typer.echo(f"{count} are {_tried(waiting, endpoint.name) if waiting else 'sent again now'}")
    if resent.pruned:
        typer.echo(f"Of these streams up to {resent.pruned} events of that time are no longer in the log.")
    if asked.since < kept_since:
        typer.echo(f"The log keeps what is delivered since {local(kept_since)}; streams that ended before are gone.")


def _told(retried: "Retried", waiting: "WaitsFor | None", endpoint: str) -> str:
    from relay.outbox.control import Retried

    tried = _tried(waiting, endpoint)
    left = f"A relay had it in hand: unless that settles it, it is {tried}"
    return {
        Retried.REVIVED: f"It was dead, and has its whole schedule before it; it is {tried}",
        Retried.HASTENED: f"It is {tried}",
        Retried.UNDER_WAY: left if waiting else "It is being tried right now.",
        Retried.IN_TURN: "It has not failed: its turn comes after those before it on its stream.",
        Retried.SETTLED: "It was delivered, or never to be: there is nothing to try again.",
        Retried.EMPTIED: "Its content was removed: there is nothing left to send.",
        Retried.UNKNOWN: "The log has no such event for this endpoint, or has it no longer.",
    }[retried]


def _tried(waiting: "WaitsFor | None", endpoint: str) -> str:
    from relay.cli.due import once

    return f"due, and sent {once(waiting, endpoint)}" if waiting else "tried again now"


def _wanted(config: "Config") -> "Wanted":
    """As the dispatcher decides it; of an endpoint that is not configured any more, everything is."""
    from relay.dispatch.subscription import Subscription

    asked = {endpoint.name: Subscription(endpoint) for endpoint in config.endpoints}

    def wanted(view: "DeliveryView") -> bool:
        subscription = asked.get(view.endpoint)
        if subscription is None:
            return True
        own = not view.room  # the relay's own events are about no room
        return (own or subscription.wants_stream(view.room, view.participant)) and subscription.wants_type(view.type)

    return wanted


def _table(found: "list[DeliveryView]") -> str:
    from relay.cli.columns import ago, columns
    from relay.cli.log import CLOCK

    now = CLOCK.now_ms()
    heads = ("STATE", "SINCE", "ENDPOINT", "EVENT", "TYPE", "ATTEMPTS", "NEXT", "REASON")
    return columns(
        heads,
        [
            (
                view.state.value,
                ago(view.at, now),
                view.endpoint,
                view.event_id,
                view.type,
                view.attempts,
                ago(view.next_at, now) if view.next_at is None or view.next_at > now else "now",
                view.reason,
            )
            for view in found
        ],
    )


def _shown(found: "EventDeliveries") -> str:
    from relay.cli.columns import columns, local

    event = found.event
    parts = [f"{event.type} {event.id}, appended {local(event.emitted_at)}", _table(list(found.deliveries))]
    if found.attempts:
        tried = [
            (local(each.at), each.endpoint, each.number, _came_to(each), f"{each.elapsed_ms:.0f} ms")
            for each in found.attempts
        ]
        parts.append(columns(("ATTEMPTED", "ENDPOINT", "NUMBER", "OUTCOME", "TOOK"), tried))
    return "\n\n".join(parts)


def _line(attempt: "AttemptView") -> str:
    from relay.cli.columns import local

    place = f"{attempt.endpoint:<16} {attempt.type:<22} {attempt.event_id}"
    return f"{local(attempt.at)}  {place}  {_came_to(attempt)}  {attempt.elapsed_ms:.0f} ms  attempt {attempt.number}"


def _came_to(attempt: "AttemptView") -> str:
    return attempt.stage if attempt.status is None else f"{attempt.stage} {attempt.status}"
