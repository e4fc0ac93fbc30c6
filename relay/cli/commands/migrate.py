"""``speech-relay migrate``: creates or upgrades the log's tables, before any process of the new version starts."""

import asyncio

import typer

from relay.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, load_config
from relay.cli.output.formatting import write
from relay.outbox.opening import open_database, shown
from relay.outbox.schema import REVISION


def command(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
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
