"""``speech-relay deliveries``: retry, resend and dismiss."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from relay.cli.log import CLOCK, event_types, moment
from relay.cli.log import since as beginning
from relay.cli.options import API, DEFAULT_CONFIG, ConfigOption, JsonOption, load_config, misuse
from relay.cli.output.delivery_blocker import WaitsFor, once
from relay.cli.output.formatting import local, write
from relay.cli.relay import operated
from relay.outbox.log.resends import ALL, Resent
from relay.outbox.operator.redelivery import Retried

SinceOption = Annotated[
    str | None, typer.Option(help="Only deliveries in their state since then: 30m, 2h, 14:05, 2026-11-21T14:05.")
]
AllOption = Annotated[bool, typer.Option("--all", help="For every endpoint.")]


def retry(
    event_id: Annotated[str | None, typer.Argument(metavar="EVENT_ID", help="The event's id.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="The endpoint to send to.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Every dead event of the endpoint.")] = False,
    all_: AllOption = False,
    since: SinceOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Retry a failed event now, or with --dead every dead one. A dead event starts its retry schedule again.

    If nothing is sent to the endpoint now, says what must happen first. Exit code 1 if the event was delivered already,
    its content is gone, or the log does not have it; with --dead always 0.
    """
    if (event_id is None) != dead:
        raise misuse("give an EVENT_ID or --dead, one of them")
    if since is not None and not dead:
        raise typer.BadParameter("goes with --dead", param_hint="--since")
    begin = beginning(since)
    if event_id is None:
        _one_of(endpoint, every=all_)
        asyncio.run(_retry_dead(config, endpoint, begin, as_json=as_json))
    elif endpoint is None or all_:
        raise misuse("give --endpoint, and no --all, with an EVENT_ID")
    else:
        raise typer.Exit(asyncio.run(_retry_one(config, event_id, endpoint, as_json=as_json)))


def discard(
    dead: Annotated[bool, typer.Option("--dead", help="Dead events: there is nothing else to discard.")] = False,
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint's.")] = None,
    all_: AllOption = False,
    since: SinceOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Dismiss dead events: they are not listed any more, and not retried. `resend` can still send them."""
    if not dead:
        raise misuse("add --dead: only dead events can be discarded")
    _one_of(endpoint, every=all_)
    begin = beginning(since)

    async def discarded() -> int:
        async with operated(config) as relay:
            names = await relay.names(endpoint)
            return sum([count for name in names async for count in relay.discard_dead(name, since=begin)])

    count = asyncio.run(discarded())
    if as_json:
        write({"endpoint": endpoint, "discarded": count})
    else:
        typer.echo(f"{count} dead events are discarded." if count else "There are no dead events.")


def _one_of(endpoint: str | None, *, every: bool) -> None:
    if (endpoint is None) != every:
        raise misuse("give --endpoint NAME or --all, one of them")


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
    """Send delivered events to an endpoint again: the same ids and bytes, in order, with `relay-resend: true`.

    Covers what the endpoint subscribes to, without interims, and without what is pending, parked or dead. Works beside
    a running relay, which sends these events together with new ones.
    """
    now = CLOCK.now_ms()
    begin, end = moment(since, now, option="--since"), ALL if until is None else moment(until, now, option="--until")
    if begin >= (latest := now if until is None else end):
        limit = f"{'now' if until is None else '--until'}, {local(latest)}"
        raise typer.BadParameter(f"{local(begin)} is not before {limit}", param_hint="--since")
    event_types(of_type)  # refuses what matches none

    async def send() -> tuple[Resent, WaitsFor | None]:
        async with operated(config) as relay:
            last = None if until is None else end
            return await relay.resend(endpoint, since=begin, until=last, pattern=of_type, room=room, dry_run=dry_run)

    resent, waiting = asyncio.run(send())
    kept = None if API.get() else CLOCK.now_ms() - load_config(config).outbox.retention // timedelta(milliseconds=1)
    if as_json:
        write(
            {
                "endpoint": endpoint,
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
        typer.echo(f"No delivered event that {endpoint} subscribes to matches.")
    elif dry_run:
        typer.echo(f"{count} would be sent to {endpoint} again.")
    else:
        typer.echo(f"{count} are {_tried(waiting, endpoint) if waiting else 'sent again now'}")
    if resent.pruned:
        typer.echo(f"Of these streams up to {resent.pruned} events of that time are no longer in the log.")
    if kept is not None and begin < kept:
        typer.echo(f"The log keeps what is delivered since {local(kept)}; streams that ended before are gone.")


async def _retry_one(config: Path, event_id: str, endpoint: str, *, as_json: bool) -> int:
    async with operated(config) as relay:
        retried, waiting = await relay.retry(event_id, endpoint)
    if as_json:
        outcome = {"event_id": event_id, "endpoint": endpoint, "outcome": retried.value}
        write({**outcome, "waits_for": waiting.value if waiting else None})
    else:
        typer.echo(_told(retried, waiting, endpoint))
    return 1 if retried in (Retried.UNKNOWN, Retried.SETTLED, Retried.EMPTIED) else 0


async def _retry_dead(config: Path, endpoint: str | None, begin: int, *, as_json: bool) -> None:
    totals: dict[str, int] = {}
    waiting: dict[str, WaitsFor | None] = {}
    async with operated(config) as relay:
        for name in await relay.names(endpoint):
            async for revived in relay.retry_dead(name, since=begin):
                totals[name] = totals.get(name, 0) + revived
                if not as_json:
                    typer.echo(f"{totals[name]} …", err=True)
            if name in totals:
                waiting[name] = await relay.waits_for(name)
    if as_json and endpoint is not None:
        waits = waiting.get(endpoint)
        write({"endpoint": endpoint, "retried": totals.get(endpoint, 0), "waits_for": waits.value if waits else None})
    elif as_json:
        of_each = [
            {"endpoint": name, "retried": count, "waits_for": waits.value if (waits := waiting[name]) else None}
            for name, count in totals.items()
        ]
        write({"endpoint": None, "retried": sum(totals.values()), "endpoints": of_each})
    elif not totals:
        typer.echo("There are no dead events.")
    else:
        for name, count in totals.items():
            whose = "" if endpoint else f" for {name}"
            typer.echo(f"{count} dead events{whose} are {_tried(waiting[name], name)}")


def _told(retried: Retried, waiting: WaitsFor | None, endpoint: str) -> str:
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


def _tried(waiting: WaitsFor | None, endpoint: str) -> str:
    return f"due, and sent {once(waiting, endpoint)}" if waiting else "tried again now"
