"""Runs every probe that a configuration requires, concurrently: LiveKit, detectors, outbox, endpoints, files."""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.capture.detectors import Providers
from relay.cli.probes.endpoint import probe_endpoint
from relay.cli.probes.finding import Finding
from relay.cli.probes.secrets import probe_secrets
from relay.cli.probes.speech import probe_realtime, probe_stt, probe_vad
from relay.config.capture import Capture
from relay.config.document import read_document
from relay.config.models import Config, LiveKit, OutboxConfig
from relay.errors import ConfigError, LiveKitError, ProviderError
from relay.events.catalog import CATALOG, matches
from relay.events.operator import RelayEvent
from relay.outbox.opening import log_file
from relay.private_files import exposed

DEADLINE = 10.0
"""Seconds for a request to LiveKit."""

_LOG_PARTS = ("", "-wal", "-shm", ".lock", ".relay")
_SECRET_KEY = re.compile(r"secret|api_?key|token|password|authorization", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{\w+(:-)?\}")
_URL_WITH_SECRET = re.compile(r"https?://[^/?#]*@|https?://[^#]*\?")


async def probe(config: Config, environ: Mapping[str, str], *, offline: bool) -> list[Finding]:
    """The findings in the order of the configuration. Offline, nothing leaves the machine."""
    outbox = probe_outbox(config.outbox)
    if offline:
        skipped = [Finding(f"endpoint {each.name}", "not tried", "--offline") for each in config.endpoints]
        heard = await _probe_detectors(config, environ, offline=True)
        unset = unset_keys(config.livekit)
        livekit = Finding("livekit", "not tried", f"--offline; `run` needs {unset} too" if unset else "--offline")
        return [livekit, *heard, outbox, *skipped, *_probe_subscriptions(config), *probe_secrets(config)]
    livekit, heard, endpoints = await asyncio.gather(
        probe_livekit(config.livekit),
        _probe_detectors(config, environ, offline=False),
        asyncio.gather(*(probe_endpoint(endpoint) for endpoint in config.endpoints)),
    )
    return [livekit, *heard, outbox, *endpoints, *_probe_subscriptions(config), *probe_secrets(config)]


def _probe_subscriptions(config: Config) -> list[Finding]:
    """A warning for each endpoint that gets the relay's own events about rooms that it does not ask for."""
    found = []
    for endpoint in config.endpoints:
        if (endpoint.rooms, endpoint.participants) == (("*",), ("*",)):
            continue
        types = [
            name for name, kind in CATALOG.items() if issubclass(kind, RelayEvent) and matches(name, endpoint.events)
        ]
        if types:
            detail = f"gets {', '.join(types)} about every room; to change that, list the types it needs in events"
            found.append(Finding(f"endpoint {endpoint.name}", "warning", detail))
    return found


async def _probe_detectors(config: Config, environ: Mapping[str, str], *, offline: bool) -> list[Finding]:
    capture = config.capture
    if capture.observe is not None:
        return []
    if capture.realtime is not None:
        found = [await probe_realtime(capture.realtime, environ, offline=offline)]
    else:
        found = [probe_vad(capture.vad), await probe_stt(capture.stt, environ, offline=offline)]
    if any(finding.status == "failed" for finding in found):
        return found
    return found + await probe_options(capture)


def probe_outbox(outbox: OutboxConfig) -> Finding:
    """Check whether the database, or the folder for it, is writable. Creates nothing."""
    path = Path(outbox.url.removeprefix("sqlite:///").partition("?")[0])
    try:
        return _probe(path)
    except OSError as error:  # a name that is too long, a folder without search permission
        return Finding("outbox", "failed", f"{path}: {error.strerror}; correct outbox.url")


def _probe(path: Path) -> Finding:
    if path.is_dir():
        return Finding("outbox", "failed", f"{path} is a folder; outbox.url names a file")
    if path.exists():
        writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        return _finding(writable, f"{path} is there and writable", path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return _finding(folder.is_dir() and os.access(folder, os.W_OK | os.X_OK), f"{path} will be made", folder)


def _finding(writable: bool, detail: str, place: Path) -> Finding:
    if writable:
        return Finding("outbox", "ok", detail)
    return Finding("outbox", "failed", f"{place} is not writable for this user; change its owner or outbox.url")


def unset_keys(livekit: LiveKit) -> str:
    """The settings missing for a request to the server, as part of a sentence; empty if complete."""
    values = {"LIVEKIT_URL": livekit.url, "LIVEKIT_API_KEY": livekit.api_key, "LIVEKIT_API_SECRET": livekit.api_secret}
    return ", ".join(name for name, value in values.items() if not value)


async def probe_livekit(livekit: LiveKit) -> Finding:
    """Send a request that only the right key and secret may make."""
    from relay.capture.livekit.access import Access, verify_access  # the slowest import of all

    try:
        async with asyncio.timeout(DEADLINE):
            facts = await verify_access(Access.of(livekit))
    except TimeoutError:
        return Finding("livekit", "failed", f"no answer within {DEADLINE:g} s; correct LIVEKIT_URL")
    except (ConfigError, LiveKitError) as error:
        return Finding("livekit", "failed", str(error))
    return Finding("livekit", "ok", f"{facts.url} accepts the key and secret; {facts.rooms} rooms are open")


async def probe_options(capture: Capture) -> list[Finding]:
    """Create the detectors as ``run`` does: errors in their options, missing keys. No key leaves this machine."""
    try:
        providers = Providers(capture.vad, capture.stt, capture.realtime)
        try:
            providers.detectors()
        finally:
            await providers.aclose()
    except ProviderError as error:
        return [Finding("detectors", "failed", str(error))]
    return []


def probe_files(files: Sequence[Path], config: Config) -> list[Finding]:
    """A failure for each file with secrets or transcripts that group or others can read or write.

    ``files``: the files of the configuration. ``.env`` is always checked, the YAML file if it contains a secret itself,
    and not only as ``${VAR}``. Correct files are not reported.
    """
    log = log_file(config.outbox.url)
    private = [path for path in files if path.name == ".env" or _has_secret(path)]
    private += [path for endpoint in config.endpoints for path in (endpoint.tls.key,) if path]
    private += [log.with_name(log.name + part) for part in _LOG_PARTS]
    return [
        Finding("files", "failed", f"other users may read or write {path}; chmod 600 {path}")
        for path in private
        if exposed(path)
    ]


def _has_secret(path: Path) -> bool:
    regular = path.is_file()  # a pipe has been read already
    return regular and any(_is_secret(key, value) for key, value in _texts(read_document(path).values))


def _is_secret(key: str, value: str) -> bool:
    if _SECRET_KEY.search(key):
        return bool(value) and not _REFERENCE.fullmatch(value)
    return bool(_URL_WITH_SECRET.match(value))


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text with the nearest key above it."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, str(name))
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item, key)
    elif isinstance(node, str):
        yield key, node
