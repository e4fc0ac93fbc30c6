"""``speech-relay ui``: the live page on a log, where no relay serves it. The demo shows it too."""

import asyncio
import os
import sys
import webbrowser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from relay.api.appends import Appends
from relay.api.backend import Backend
from relay.api.routes.all import routers_of
from relay.api.server import HttpServer
from relay.cli.interrupt import until_signal
from relay.cli.log import CLOCK, opened
from relay.cli.options import DEFAULT_CONFIG, ConfigOption, load_config
from relay.config.api import ListenAddress
from relay.config.endpoint import Endpoint
from relay.outbox.operator.access import Log


@asynccontextmanager
async def live_page(
    log: Log, endpoints: Sequence[Endpoint], *, port: int = 0, appends: Appends | None = None, read_only: bool
) -> AsyncIterator[str]:
    """The page of this log while the body runs; yields its URL. ``port``: 0 for a free one.

    Raises ``ConfigError`` if the port cannot be used.
    """
    stop = asyncio.Event()
    backend = Backend(log, lambda: endpoints, CLOCK, stop, appends, read_only=read_only)
    at = ListenAddress("--port", f"127.0.0.1:{port}", (), api=True)
    server = HttpServer(at, {}, routers=routers_of(backend))
    await server.start()
    try:
        yield server.url
    finally:
        stop.set()
        await server.stop()


def open_browser(url: str) -> bool:
    """Show the URL in the user's browser; whether there is one. A browser for terminals would hide the command's own
    output."""
    graphical = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(graphical) and webbrowser.open(url)


def ui(
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
