"""Changes the dispatcher's endpoints while the service runs: those of config.yaml, and those made over the API.

config.yaml is read again at SIGHUP, and when it or a certificate has changed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from relay.config.api import RuntimeEndpoints as Rules
from relay.config.api import listening
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.endpoint.directory import ApiEndpointDirectory, Changes
from relay.errors import OutboxError, RelayError
from relay.outbox.log.api_endpoints import ApiEndpoints
from relay.telemetry.log_dedup import Outage
from relay.telemetry.metrics import Counter

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""Seconds between two checks of the files."""

Fingerprint = dict[Path, tuple[int, int, int] | None]


def reload_counter() -> Counter:
    """Counts reloads by result."""
    return Counter(
        "reloads", "Reloads of the configuration, by result: ok, or failed (the former one stays).", ("result",),
        [("ok",), ("failed",)],
    )  # fmt: skip


class ReloadSource(Protocol):
    """The source of the configuration."""

    @property
    def files(self) -> Sequence[Path]:
        """The files it is read from; a missing file may appear later."""
        ...

    def load(self) -> Config:
        """Read it again. Raises ``ConfigError`` if it cannot be used."""
        ...


class Reload:
    """Applies changes of the endpoints. Other changes wait for the next start, and are named in the log."""

    def __init__(
        self,
        source: ReloadSource,
        config: Config,
        apply: Callable[[Sequence[Endpoint]], Awaitable[None]],
        *,
        asked: asyncio.Event,
        every_s: float = EVERY_S,
        reloads: Counter | None = None,
    ) -> None:
        """``config`` is the running configuration; ``asked`` forces a reload even without changes, as SIGHUP does;
        ``reloads`` counts by result."""
        self._source, self._config, self._apply, self._asked = source, config, apply, asked
        self._every_s, self._reloads = every_s, reloads or reload_counter()
        # the first look reads the files in any case: they may have changed while the process started
        self._seen: Fingerprint | None = None

    async def run(self) -> None:
        """Run until cancelled. A configuration that cannot be used is refused, with its mistakes; the old one stays."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._asked.wait()
            found = _fingerprint(self._files())
            if found != self._seen or self._asked.is_set():
                asked = self._asked.is_set()
                self._asked.clear()
                await self._reload(even_unchanged=asked, first=self._seen is None)
                self._seen = {path: found[path] if path in found else _stat(path) for path in self._files()}

    def _files(self) -> Sequence[Path]:
        """The endpoints of the running configuration."""
        certificates = [path for endpoint in self._config.endpoints for path in endpoint.tls.files]
        return [*self._source.files, *certificates]

    async def _reload(self, *, even_unchanged: bool, first: bool) -> None:
        """``even_unchanged``: apply the same endpoints, too: another process may have changed what the log knows.

        ``first``: nothing is reported of files that are as they were."""
        try:
            new = await asyncio.to_thread(self._source.load)
            if first and not even_unchanged and new == self._config:
                return
            if even_unchanged or new.endpoints != self._config.endpoints:
                await self._apply(new.endpoints)
        except RelayError as error:
            mistakes = "; ".join(str(error).splitlines())
            logger.error("the configuration is not taken over, the former one stays: %s", mistakes)  # noqa: TRY400 - for operators
            self._reloads.inc(("failed",))
            return
        except Exception:
            # An error of the relay's own: a saved file must not end a running service, whatever it contains.
            logger.exception("the configuration is not taken over, the former one stays: it cannot be read")
            self._reloads.inc(("failed",))
            return
        self._reloads.inc(("ok",))
        logger.info("the configuration was read again: %s", changes_in_words(self._config, new))
        self._config = self._config.model_copy(update={"endpoints": new.endpoints})


def changes_in_words(old: Config, new: Config) -> str:
    """The changes in one line: names of endpoints and of sections, no values."""
    before = {endpoint.name: endpoint for endpoint in old.endpoints}
    after = {endpoint.name: endpoint for endpoint in new.endpoints}
    changes = {
        "added": sorted(after.keys() - before.keys()),
        "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
        "removed": sorted(before.keys() - after.keys()),
    }
    parts = [f"{what} {', '.join(names)}" for what, names in changes.items() if names] or ["the endpoints are the same"]
    later = [name for name in Config.model_fields if name != "endpoints" and getattr(old, name) != getattr(new, name)]
    if later:
        parts.append(f"changes of {', '.join(later)} take effect at the next start")
    return "; ".join(parts)


def _fingerprint(files: Sequence[Path]) -> Fingerprint:
    return {path: _stat(path) for path in files}


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


LOG_EVERY_S = 0.5
"""Seconds between two looks for changes by another process; those of this one are applied at once."""


class RuntimeEndpointSync:
    """Follows the log. An endpoint of the configuration wins where both have a name."""

    def __init__(self, stored: ApiEndpoints, config: Config) -> None:
        self._stored = stored
        served = listening(config.api, config.admin)
        rules = config.api.runtime_endpoints if config.api else Rules()
        self._tenants = served.tenants if served else {}
        self._dispatcher: Dispatcher | None = None
        self._configured = {endpoint.name for endpoint in config.endpoints}
        self._replaced: set[str] = set()
        self.directory = ApiEndpointDirectory(stored, allow=rules.allow, apply=self._apply)

    async def start(self) -> None:
        """Read them, without those that expired meanwhile, confined to what the tenants' tokens allow now."""
        await self._stored.remove_expired()
        await self._stored.confine(self._tenants)
        await self.directory.poll()

    def send_with(self, dispatcher: Dispatcher) -> None:
        """Send to them from now on."""
        self._dispatcher = dispatcher
        self._apply(self.directory.endpoints)

    def give_way(self, endpoints: Collection[Endpoint]) -> None:
        """The configuration has these endpoints now, and the dispatcher has taken them over."""
        former, self._configured = self._configured, {endpoint.name for endpoint in endpoints}
        back = {name: made for name in former if (made := self.directory.endpoints.get(name))}
        if self._dispatcher is not None:
            self._dispatcher.revise(back)
        self._report()

    async def run(self) -> None:
        """Run until cancelled."""
        outage = Outage(logger, "changes of endpoints cannot be read now")
        while True:
            try:
                await self.directory.run(LOG_EVERY_S, read=outage.over)
            except OutboxError as error:
                outage.failed(error)
                await asyncio.sleep(LOG_EVERY_S)

    def _apply(self, changes: Changes) -> None:
        if self._dispatcher is not None:
            self._dispatcher.revise(changes)
            self._report()

    def _report(self) -> None:
        replaced = self._configured & self.directory.endpoints.keys()
        for name in sorted(replaced - self._replaced):
            logger.warning(
                "endpoint %s of the configuration replaces the one of this name that was made over the API: "
                "nothing is sent to that one until the configuration's is renamed or removed",
                name,
                extra={"endpoint": name},
            )
        self._replaced = replaced
