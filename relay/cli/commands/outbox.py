"""``speech-relay outbox``: copies the log to another database."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from relay.cli.group import Group
from relay.cli.log import CLOCK
from relay.cli.options import JsonOption
from relay.cli.output.formatting import write
from relay.config.fields import OutboxUrl
from relay.errors import ConfigError, OutboxError
from relay.outbox.opening import log_file, shown, without_password
from relay.outbox.operator.copying import Progress, copy_log

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

    Stop every relay and agent that uses one of the two before. Where it was interrupted, the same command continues.
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
