"""``speech-relay outbox copy``, ``migrate`` and ``purge``: commands about the log as a whole."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from relay.cli.group import Group
from relay.cli.log import CLOCK, opened
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, load_config, misuse
from relay.cli.output.formatting import plain, write
from relay.config.fields import OutboxUrl
from relay.errors import ConfigError, OutboxError
from relay.outbox.opening import log_file, open_database, shown, without_password
from relay.outbox.operator.copying import Progress, copy_log
from relay.outbox.operator.purge import Purged
from relay.outbox.schema import REVISION

group = typer.Typer(
    cls=Group, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
)

_FORMS = "sqlite:///path/to/relay.db or postgresql://user@host/database"


@group.command()
def copy(
    source: Annotated[str, typer.Option("--from", metavar="URL", help=f"The log to copy: {_FORMS}.")],
    target: Annotated[str, typer.Option("--to", metavar="URL", help="An empty database, written likewise.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a whole log to another database, and compare every row: from SQLite to PostgreSQL, and back.

    First stop every relay and agent that uses either log. After an interruption, run the same command again.
    The log that was copied stays as it is: never start a relay on both.
    """
    source, target = _url(source, "--from"), _url(target, "--to")
    try:
        with _progress(shows=sys.stderr.isatty()) as progress:
            copied = copy_log(source, target, CLOCK, progress)
    except OutboxError as error:
        option = "--to" if _names(target, str(error)) else "--from"
        raise OutboxError(str(error).replace("outbox.url", option)) from error
    if as_json:
        write({"from": shown(source), "to": shown(target), **asdict(copied)})
    else:
        counts = [
            f"{contents.rows} row{'s' if contents.rows > 1 else ''} of {name}"
            for name, contents in copied.tables.items()
            if contents.rows
        ]
        typer.echo(f"Copied and compared {', '.join(counts) or 'an empty log'}.")
        typer.echo(f"Now set outbox.url to {without_password(target)}, and start the relay.")


def _url(text: str, option: str) -> str:
    """The URL, if ``outbox.url`` could be it. Raises ``ConfigError`` that names the option."""
    try:
        return TypeAdapter(OutboxUrl).validate_python(text)
    except ValidationError as error:
        raise ConfigError(f"{option}: {error.errors()[0]['ctx']['error']}") from None


def _names(url: str, text: str) -> bool:
    """Whether an error is about this log."""
    return any(f"outbox {place}" in text for place in (shown(url), url.removeprefix("sqlite:///"), log_file(url)))


@contextmanager
def _progress(*, shows: bool) -> Iterator[Progress]:
    """A bar for each table on standard error; nothing where that is no terminal."""
    if not shows:
        yield lambda table, rows, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    looks = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bars(*looks, console=Console(stderr=True), transient=True) as bars:
        shown_as: dict[str, int] = {}

        def progress(table: str, rows: int, total: int) -> None:
            if table not in shown_as:
                shown_as[table] = bars.add_task(table)
            bars.update(shown_as[table], completed=rows, total=total)  # type: ignore[arg-type]

        yield progress


def migrate(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Create or upgrade the log's tables. Every other command does that too, with the right to do so.

    Any number of processes may do it at once. Exit code 2 if the log cannot be used, or a newer version wrote it.
    """
    url = load_config(config).outbox.url
    found = asyncio.run(_migrated(url))
    if as_json:
        write({"outbox": shown(url), "found": found, "tables": REVISION})
    elif found == REVISION:
        typer.echo(f"{shown(url)}: the tables are up to date ({REVISION})")
    elif found is None:
        typer.echo(f"{shown(url)}: the tables were created ({REVISION})")
    else:
        typer.echo(f"{shown(url)}: the tables were upgraded from {found} to {REVISION}")


async def _migrated(url: str) -> str | None:
    database = await asyncio.to_thread(open_database, url)
    database.close()
    return database.found_tables


def purge(
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

    Works beside a running relay. Endpoints must remove what they have received. Exit code 1 if the log holds
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
            "Copies of the bytes may be left in the log's files: it is large, a process was reading it, or this user "
            "may not rewrite it. Run this again with --rewrite, best while the relay is stopped, as their owner."
        )
    return lines
