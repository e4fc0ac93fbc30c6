"""``speech-relay ui``: the live page on a log, where no relay serves it."""

import asyncio
from typing import Annotated

import typer

from relay.cli.interrupt import until_signal
from relay.cli.live_page import live_page, open_browser
from relay.cli.log import opened
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, load_config


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Without it, a free one.")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Serve the page on this machine, read-only, until Ctrl-C. A relay with the section `api` serves it itself."""
    loaded = load_config(config)

    async def serve() -> None:
        async with opened(loaded) as log, live_page(log, loaded.endpoints, port=port, read_only=True) as url:
            typer.echo(f"{url}/ shows the log, read-only; Ctrl-C ends.")
            if open_ and not open_browser(f"{url}/"):
                typer.echo("No browser was found here: open the address yourself.", err=True)
            await until_signal()

    asyncio.run(serve())
