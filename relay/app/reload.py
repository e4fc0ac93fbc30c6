"""Endpoints follow config.yaml while the service runs: at SIGHUP, and when it or a certificate has changed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.errors import RelayError

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""Between two looks at the files."""

Fingerprint = dict[Path, tuple[int, int, int] | None]


class Source(Protocol):
    """Where the configuration comes from."""

    @property
    def files(self) -> Sequence[Path]:
        """What it is read from; a file that is not there may come to be."""
        ...

    def load(self) -> Config:
        """Read it anew. Raises ``ConfigError`` for one that cannot be used."""
        ...


class Reload:
    """Applies what has changed of the endpoints. What has changed elsewhere waits for the next start, and is named."""

    def __init__(
        self,
        source: Source,
        config: Config,
        apply: Callable[[Sequence[Endpoint]], Awaitable[None]],
        *,
        asked: asyncio.Event,
        every_s: float = EVERY_S,
    ) -> None:
        """``config`` is what runs; ``asked`` is set to have it read again, changed or not: what SIGHUP does."""
        self._source, self._config, self._apply, self._asked = source, config, apply, asked
        self._every_s = every_s
        # from the start, not from the first look: a change between the two is a change
        self._seen = _fingerprint(self._files())

    async def run(self) -> None:
        """Until cancelled. A configuration that cannot be used is refused, with its mistakes, and the old one stays."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._asked.wait()
            found = _fingerprint(self._files())
            if found != self._seen or self._asked.is_set():
                self._asked.clear()
                await self._reload()
                self._seen = {path: found[path] if path in found else _stat(path) for path in self._files()}

    def _files(self) -> Sequence[Path]:
        """Those of the configuration that runs."""
        certificates = [path for endpoint in self._config.endpoints for path in endpoint.tls.files]
        return [*self._source.files, *certificates]

    async def _reload(self) -> None:
        try:
            new = await asyncio.to_thread(self._source.load)
            if new.endpoints != self._config.endpoints:
                await self._apply(new.endpoints)
        except RelayError as error:
            mistakes = "; ".join(str(error).splitlines())
            logger.error("the configuration is not taken over, the former one stays: %s", mistakes)  # noqa: TRY400 - for operators
            return
        except Exception:
            # An error of the relay's own: a saved file must not end what runs well, whatever is in it.
            logger.exception("the configuration is not taken over, the former one stays: it cannot be read")
            return
        logger.info("the configuration was read again: %s", told(self._config, new))
        self._config = self._config.model_copy(update={"endpoints": new.endpoints})


def told(old: Config, new: Config) -> str:
    """What has changed, in a line: names of endpoints and of sections, no values."""
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
