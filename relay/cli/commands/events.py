"""``speech-relay events``: the log's events. This is the only command that shows what was said."""

import asyncio
import json
from typing import Annotated

import typer

from relay.cli.group import listing
from relay.cli.interrupt import until_signal
from relay.cli.log import event_types
from relay.cli.log import since as beginning
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from relay.cli.output.formatting import columns, detail_of, event_shape, local, plain, write, write_line
from relay.cli.relay import operated
from relay.outbox.operator.views import EventView

group = listing()

_MOST = 10**9
"""Events of one list: more than a log holds, and a number that databases take."""

RoomOption = Annotated[str, typer.Option(metavar="GLOB", help="Only rooms of such a name.")]
ParticipantOption = Annotated[str, typer.Option(metavar="GLOB", help="Only participants of such an identity.")]
TypeOption = Annotated[str, typer.Option("--type", metavar="GLOB", help="Only such types: transcript.*")]


@group.command("list")
def list_(
    room: RoomOption = "*",
    participant: ParticipantOption = "*",
    of_type: TypeOption = "*",
    since: Annotated[str | None, typer.Option(help="Only what was appended since: 30m, 2h, 14:05.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number to list.")] = 50,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """The newest events."""
    event_types(of_type)  # refuses what matches none
    begin = beginning(since)

    async def look() -> list[EventView]:
        async with operated(config) as relay:
            most = min(limit, _MOST)
            return await relay.events(room=room, participant=participant, pattern=of_type, since=begin, limit=most)

    found = asyncio.run(look())
    if as_json:
        write({"events": [event_shape(view) for view in found]})
    else:
        typer.echo(_table(found) if found else "No events match.")


@group.command()
def show(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id: its webhook-id.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """An event's JSON as it stands in the log. Exit code 1 if the log does not have it."""

    async def look() -> EventView | None:
        async with operated(config) as relay:
            return await relay.event(event_id)

    found = asyncio.run(look())
    if found is None or not found.body:
        gone = "its content is gone: an interim that is over, or removed" if found else "the log has no such event"
        typer.echo(f"{event_id}: {gone}", err=True)
        raise typer.Exit(1)
    write(json.loads(found.body))


@group.command()
def tail(
    room: RoomOption = "*",
    participant: ParticipantOption = "*",
    of_type: TypeOption = "*",
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Events as they are appended. Ends on Ctrl-C."""
    event_types(of_type)  # refuses what matches none

    async def watch() -> None:
        async with operated(config) as relay:
            async for view in relay.appended(room=room, participant=participant, pattern=of_type):
                write_line(event_shape(view)) if as_json else typer.echo(_line(view))

    asyncio.run(until_signal(watch()))


def _table(found: list[EventView]) -> str:
    rows = [(local(v.emitted_at), v.id, v.type, v.room, v.participant, _detail(v)) for v in found]
    return columns(("APPENDED", "EVENT", "TYPE", "ROOM", "PARTICIPANT", ""), rows)


def _line(view: EventView) -> str:
    who = f"{plain(view.room):<16} {plain(view.participant):<16}"
    return f"{local(view.emitted_at)}  {who} {view.type:<22} {plain(_detail(view))}"


def _detail(view: EventView) -> object:
    return detail_of(json.loads(view.body)["data"]) if view.body else "(content gone)"
