"""The log that a command looks into, whether a relay runs on it or not."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import typer

from relay.clock import SystemClock
from relay.config.durations import parse_duration
from relay.config.endpoint import Endpoint
from relay.config.fields import nearest
from relay.config.models import Config
from relay.errors import ConfigError
from relay.outbox.access import Log, log_file, open_log

CLOCK = SystemClock()
_EVERY = 0.5
"""Seconds between two looks of a tail."""


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Log]:
    """The configuration's log. Where there is none yet, that is said and the exit code is 1: looking makes nothing."""
    file = log_file(config.outbox.url)
    if not file.exists() or not file.stat().st_size:  # an empty file is a valid, new database
        typer.echo(f"outbox {file}: there is no log yet; `speech-relay run` makes it", err=True)
        raise typer.Exit(1)
    async with open_log(config.outbox.url, CLOCK) as log:
        yield log


def configured(config: Config, name: str) -> Endpoint:
    """The endpoint of the configuration that has this name. Raises ``ConfigError`` where there is none."""
    endpoints = {endpoint.name: endpoint for endpoint in config.endpoints}
    if name not in endpoints:
        raise ConfigError(f"no endpoint is called {name}; {_meant(name, tuple(endpoints))}")
    return endpoints[name]


async def known(log: Log, config: Config, name: str | None) -> str | None:
    """The name, if the log or the configuration knows it. Raises ``ConfigError`` where neither does."""
    names = {*await log.inspection.endpoint_names(), *(endpoint.name for endpoint in config.endpoints)}
    if name is not None and name not in names:
        raise ConfigError(f"no endpoint is called {name}; {_meant(name, tuple(sorted(names)))}")
    return name


def since(text: str | None) -> int:
    """The wall time of ``--since 2h`` in epoch milliseconds; 0 without it. Raises ``typer.BadParameter``."""
    if text is None:
        return 0
    try:
        span = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    return max(0, CLOCK.now_ms() - span // timedelta(milliseconds=1))


async def follow(look: Callable[[], Awaitable[None]]) -> None:
    """Look again and again, until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    while not stop.is_set():
        await look()
        with suppress(TimeoutError):
            async with asyncio.timeout(_EVERY):
                await stop.wait()


def _meant(name: str, names: tuple[str, ...]) -> str:
    if meant := nearest(name, names):
        return f"did you mean {meant}?"
    return f"there are {', '.join(names)}" if names else "there is none"
