"""``speech-relay purge``: removes a participant's or a room's data from the log at once."""

import asyncio
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from relay.cli.log import opened
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, load_config, misuse
from relay.cli.output.formatting import plain, write
from relay.outbox.opening import shown
from relay.outbox.operator.purge import Purged


def command(
    participant: Annotated[str | None, typer.Option(metavar="ID", help="What this identity said, anywhere.")] = None,
    room: Annotated[str | None, typer.Option(metavar="NAME", help="What was heard in rooms of this name.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="Rewrite a log over 128 MB too; appends wait, a second for each 100 MB.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Remove a participant's or a room's data from the log, delivered or not, and say what was removed.

    Works beside a running relay. What endpoints have got already is theirs to remove. Exit code 1 where the log holds
    nothing of that name.
    """
    if bool(participant) == bool(room):
        raise misuse("give --participant or --room, one of them")
    loaded = load_config(config)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise misuse("not a terminal: pass --yes")
        what = f"participant {participant!r}" if participant else f"room {room!r}"
        typer.confirm(f"Remove everything of {what} from {shown(loaded.outbox.url)}, delivered or not?", abort=True)

    async def remove() -> Purged:
        async with opened(loaded) as log:
            if participant:
                return await log.purge.participant(participant, rewrite=rewrite)
            return await log.purge.room(room or "", rewrite=rewrite)

    purged = asyncio.run(remove())
    if as_json:
        write(asdict(purged))
    elif purged.found:
        typer.echo("\n".join(_sentences(purged)))
    else:
        what = f"participant {plain(participant)}" if participant else f"room {plain(room)}"
        typer.echo(f"the log holds nothing of {what}; names must match exactly", err=True)
    raise typer.Exit(0 if purged.found else 1)


def _sentences(purged: Purged) -> list[str]:
    lines = [
        f"Removed {purged.events} events of {purged.streams} streams that had ended "
        f"and of {purged.open_streams} that are open,",
        f"{purged.overlaps} overlaps that named the participant, {purged.set_aside} parked and dead deliveries, "
        f"{purged.attempts} records of attempts.",
    ]
    if purged.open_streams:
        lines.append(
            f"{purged.open_streams} are still being recorded: what comes on them from now on is kept. "
            "Run this again after the call."
        )
    if not purged.overwritten:
        lines.append(
            "Copies of the bytes may be left in the log's files: it is large, or a process was reading it. "
            "Run this again with --rewrite, best while the relay is stopped."
        )
    return lines
