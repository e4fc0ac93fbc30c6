"""Opens the log for a command, whether a relay runs on it or not."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, time, timedelta

import typer

from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.config.fields import nearest, parse_duration
from relay.config.models import Config
from relay.errors import ConfigError
from relay.events.catalog import CATALOG, matches
from relay.outbox.opening import holds_log, log_file, shown
from relay.outbox.operator.access import Log, open_log
from relay.telemetry.printable import here

CLOCK = SystemClock()
_RELATIVE = "outbox.url is relative to the current folder, not to the configuration's"
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d\d(:\d\d)?")


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Log]:
    """Open the configuration's log. If it does not exist, report that and exit with code 1: reading creates nothing."""
    url = config.outbox.url
    if not await asyncio.to_thread(holds_log, url):
        place = log_file(url) or shown(url)
        hint = "" if url.startswith(("sqlite:////", "postgres")) else f"; {_RELATIVE}"
        typer.echo(f"outbox {place}: there is no log yet; `speech-relay run` creates it{hint}", err=True)
        raise typer.Exit(1)
    async with open_log(url, CLOCK) as log:
        yield log


def named(endpoints: Iterable[Endpoint], name: str) -> Endpoint:
    """The endpoint with this name. Raises ``ConfigError`` if it does not exist."""
    by_name = {endpoint.name: endpoint for endpoint in endpoints}
    if name not in by_name:
        raise ConfigError(f"no endpoint is called {name}; {meant(name, tuple(by_name))}")
    return by_name[name]


async def known(log: Log, config: Config, name: str | None) -> str | None:
    """The name, if the log or the configuration knows it. Raises ``ConfigError`` otherwise."""
    names = {*await log.inspection.endpoint_names(), *(endpoint.name for endpoint in config.endpoints)}
    if name is not None and name not in names:
        raise ConfigError(f"no endpoint is called {name}; {meant(name, tuple(sorted(names)))}")
    return name


def since(text: str | None) -> int:
    """The wall time of ``--since`` in epoch milliseconds; 0 without it. Raises ``typer.BadParameter``."""
    return 0 if text is None else moment(text, CLOCK.now_ms(), option="--since")


def moment(text: str, now: int, *, option: str) -> int:
    """Parse a wall time as people write it: an age (``2h``), a time of day, or a date.

    Returns epoch milliseconds. Without a zone it is in this machine's zone. A time of day is its most recent
    occurrence. Raises ``typer.BadParameter``.
    """
    with suppress(ValueError):
        return max(0, now - parse_duration(text) // timedelta(milliseconds=1))
    today = here(datetime.fromtimestamp(now / 1000, UTC))
    written = text.strip()
    try:
        if _TIME_OF_DAY.fullmatch(written):
            of_day = time.fromisoformat(written.rjust(5 if written.count(":") == 1 else 8, "0"))
            at = datetime.combine(today.date(), of_day).astimezone()
            if at > today:
                at = datetime.combine(today.date() - timedelta(days=1), of_day).astimezone()
        else:
            at = here(datetime.fromisoformat(written))
        return max(0, round(at.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is not a time; write how long ago (30m, 2h, 1d), a time of day (14:05) or a date with it "
            "(2026-11-21T14:05, with +01:00 or Z for another zone)",
            param_hint=option,
        ) from None


def event_types(pattern: str) -> list[str]:
    """The types that match a ``--type`` glob. Raises ``typer.BadParameter`` if none does."""
    types = [each for each in CATALOG if matches(each, (pattern,))]
    if not types:
        meant = nearest(pattern, tuple(CATALOG))
        cure = f"; did you mean {meant}?" if meant else ""
        raise typer.BadParameter(f"no event type is called {pattern}{cure}", param_hint="--type")
    return types


def meant(name: str, names: tuple[str, ...]) -> str:
    """Ends the message that a name is unknown: with the one that was probably meant, or with all."""
    if near := nearest(name, names):
        return f"did you mean {near}?"
    return f"known here: {', '.join(names)}" if names else "there are no endpoints"
