"""``speech-relay trigger``: sends a sample of any type to an endpoint, like a real event."""

import json
from typing import Annotated

import typer

from relay.cli.log import named
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, load_config, misuse
from relay.cli.output.formatting import write
from relay.cli.sample import fresh, report, send
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.subscription import Subscription


def trigger(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type, such as transcript.final.")],
    endpoint: Annotated[
        str | None, typer.Option(help="The endpoint to send it to; not needed if there is only one.")
    ] = None,
    room: Annotated[str | None, typer.Option(help="The room's name, in place of the sample's.")] = None,
    participant: Annotated[str | None, typer.Option(help="The identity, in place of the sample's.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send a sample now, past the log: signed, filtered and projected as the real one would be.

    Exit code 1 when it was not taken, or the endpoint does not ask for it.
    """
    loaded = load_config(config)
    if endpoint is None and len(loaded.endpoints) != 1:
        names = ", ".join(each.name for each in loaded.endpoints)
        raise misuse(f"give --endpoint, one of {names}" if names else f"{config}: there is no endpoint to send to")
    destination = loaded.endpoints[0] if endpoint is None else named(loaded.endpoints, endpoint)
    sample = fresh(event_type, endpoint=destination.name, room=room, participant=participant)
    event = json.loads(sample.body)
    heard_in, said_by = event.get("room", {}).get("name", ""), event.get("participant", {}).get("identity", "")
    if why := _unwanted(destination, event_type, heard_in, said_by):
        if as_json:
            write({"endpoint": destination.name, "type": event_type, "taken": False, "reason": why})
        else:
            typer.echo(f"not sent: {why}", err=True)
        raise typer.Exit(1)
    raise typer.Exit(report(destination.name, sample.id, sample.type, send(destination, sample), as_json=as_json))


def _unwanted(endpoint: Endpoint, event_type: str, room: str, participant: str) -> str | None:
    """Why the endpoint would not get such an event; None if it would. A ping needs no subscription."""
    asked = Subscription(endpoint)
    if event_type == "ping":
        return None
    if not asked.wants_type(event_type):
        return f"{endpoint.name} asks for {', '.join(endpoint.events)}"
    if room and not asked.wants_stream(room, participant):
        return (
            f"{endpoint.name} asks for rooms {', '.join(endpoint.rooms)} and participants "
            f"{', '.join(endpoint.participants)}; give --room and --participant"
        )
    return None
