"""Runs the probes of a configuration: LiveKit, detectors, outbox, endpoints, secrets, files."""

import asyncio
import base64
import errno
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from relay.capture.detectors import Providers
from relay.cli.provider_probes import Finding, probe_realtime, probe_stt, probe_vad
from relay.config.api import listening
from relay.config.capture import Capture
from relay.config.document import read_document
from relay.config.endpoint import Endpoint
from relay.config.fields import split_address
from relay.config.models import Config, LiveKit, OutboxConfig
from relay.dispatch.http.aiohttp_transport import (
    NO_HANDSHAKE,
    NO_NAME_SERVER,
    REFUSED,
    UNREACHED,
    UNTRUSTED,
)
from relay.dispatch.http.outcome import AttemptFailed, OutOfResources
from relay.dispatch.http.resolver import Resolver
from relay.dispatch.http.transport import open_connections
from relay.errors import ConfigError, LiveKitError, OutboxError, ProviderError
from relay.events.catalog import CATALOG, matches
from relay.events.operator import RelayEvent
from relay.outbox.log.processes import Role
from relay.outbox.opening import exposures, holds_log, log_file, may_create, require_usable, shown
from relay.private_files import exposed

DEADLINE = 10.0
"""Seconds for a request to LiveKit."""

_LOG_PARTS = ("", "-wal", "-shm", ".lock", ".relay")
_SECRET_KEY = re.compile(r"secret|api_?key|token|password|authorization", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{\w+(:-)?\}")
_URL_WITH_SECRET = re.compile(r"https?://[^/?#]*@|https?://[^#]*\?|postgresql://[^/?#]*:[^/?#]*@")


async def probe(config: Config, environ: Mapping[str, str], *, offline: bool, role: Role = "run") -> list[Finding]:
    """The findings in the order of the configuration, of what a process of this role needs. Offline, nothing leaves the
    machine."""
    heard, sending, outbox = await asyncio.gather(
        _probe_listening(config, environ, offline=offline) if role != "dispatch" else asyncio.sleep(0, []),
        _probe_sending(config, offline=offline) if role != "worker" else asyncio.sleep(0, []),
        asyncio.to_thread(probe_outbox, config.outbox, offline=offline),
    )
    secrets = _of_livekit(config.livekit) if role == "worker" else probe_secrets(config)
    others = await asyncio.to_thread(exposures, config.outbox.url) if outbox.status == "ok" else []
    log = [outbox, *(Finding("outbox", "warning", each) for each in others)]
    return [*heard, *log, *_probe_port(config), *sending, *secrets]


async def _probe_listening(config: Config, environ: Mapping[str, str], *, offline: bool) -> list[Finding]:
    if not offline:
        livekit, heard = await asyncio.gather(
            probe_livekit(config.livekit), _probe_detectors(config, environ, offline=False)
        )
        return [livekit, *heard]
    unset = unset_keys(config.livekit)
    livekit = Finding("livekit", "not tried", f"--offline; `run` needs {unset} too" if unset else "--offline")
    return [livekit, *await _probe_detectors(config, environ, offline=True)]


async def _probe_sending(config: Config, *, offline: bool) -> list[Finding]:
    if offline:
        reached = [Finding(f"endpoint {each.name}", "not tried", "--offline") for each in config.endpoints]
    else:
        reached = list(await asyncio.gather(*(probe_endpoint(endpoint) for endpoint in config.endpoints)))
    return [*reached, *_probe_subscriptions(config)]


def _probe_port(config: Config) -> list[Finding]:
    """A warning if a program has the address of the API: perhaps a relay, beside which another is to run."""
    served = listening(config.api, config.admin)
    if served is None:
        return []
    host, port = split_address(served.address)
    try:
        with socket.create_server((host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return []
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return []  # the start reports it
    detail = f"{served.address} is in use; a second process on this machine needs SPEECH_RELAY__API__LISTEN"
    return [Finding(served.key, "warning", detail)]


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


def probe_outbox(outbox: OutboxConfig, *, offline: bool = False) -> Finding:
    """Check whether the database, or the folder for it, is writable. Creates nothing."""
    if log_file(outbox.url) is None:
        return Finding("outbox", "not tried", "--offline") if offline else _probe_server(outbox.url)
    path = Path(outbox.url.removeprefix("sqlite:///").partition("?")[0])
    try:
        return _probe(path)
    except OSError as error:  # a name that is too long, a folder without search permission
        return Finding("outbox", "failed", f"{path}: {error.strerror}; correct outbox.url")


def _probe_server(url: str) -> Finding:
    try:
        if holds_log(url):
            require_usable(url)
            return Finding("outbox", "ok", f"{shown(url)} is there, with a log")
        if may_create(url):
            return Finding("outbox", "ok", f"{shown(url)} is there; the log will be made")
    except OutboxError as error:
        return Finding("outbox", "failed", str(error))
    return Finding("outbox", "failed", f"{shown(url)}: its user may not create tables; grant CREATE on the schema")


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
    private += [log.with_name(log.name + part) for part in _LOG_PARTS] if log else []
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


async def probe_endpoint(endpoint: Endpoint, resolver: Resolver | None = None) -> Finding:
    """Connect to the endpoint as a delivery does, by the same code. Nothing is posted. ``resolver`` replaces the
    system's."""
    subject, url = f"endpoint {endpoint.name}", httpx.URL(str(endpoint.url))
    connections = open_connections(endpoint, resolver)
    try:
        address = await connections.connect(url)
    except AttemptFailed as failure:
        return Finding(subject, "failed", _cure(endpoint, failure))
    except OutOfResources as fault:
        return Finding(subject, "failed", f"this machine has run out of something: {fault}")
    finally:
        await connections.aclose()
    where = f"{url.host}:{endpoint.url.port} ({address})"
    return Finding(subject, "ok", f"{where} takes connections" + (" over TLS" if url.scheme == "https" else ""))


def _cure(endpoint: Endpoint, failure: AttemptFailed) -> str:
    host, why = (endpoint.url.host or "").strip("[]"), str(failure)
    where, seconds = f"{host}:{endpoint.url.port}", f"{endpoint.connect_timeout.total_seconds():g} s"
    match failure.stage:
        case "dns" if why == NO_NAME_SERVER:
            return f"{host}: no answer from DNS within {seconds}; check the resolver"
        case "dns":
            return f"{host} does not resolve; correct the url or the DNS"
        case "egress":
            allow = ", or name its network in egress.allow" if endpoint.egress.public_only else ""
            return f"{host}: {why}, which is never connected to; correct the url{allow}"
        case "connect" if why == REFUSED:
            local = host in ("127.0.0.1", "::1", "localhost")
            cure = "`speech-relay listen` is a receiver for this machine" if local else "is the receiver up?"
            return f"nothing listens on {where}; {cure}"
        case "connect" if why == UNREACHED:
            return f"{where}: no connection within {seconds}; is a firewall between?"
        case "tls" if why.startswith(UNTRUSTED):
            return f"{where}: its certificate is not accepted{why.removeprefix(UNTRUSTED)}"
        case "tls" if why == NO_HANDSHAKE:
            return f"{where}: no TLS handshake within {seconds}; is the url rather http://?"
        case "tls":
            return f"{where} does not speak TLS; is the url rather http://?"
        case _:
            return f"{where}: {why}"


_FEW_BYTES = 8
"""24 random bytes practically never contain so few different ones."""

_PUBLISHED = frozenset({"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"})
"""The examples in the documentation of Standard Webhooks and of its libraries."""

_WORDS = (b"secret", b"password", b"changeme", b"change-me", b"change_me", b"example")

_LIVEKIT_BYTES = 32
"""LiveKit's own server requires this of a secret."""

_CURE = "empty its variable and run `speech-relay init`, which makes one, and give it to the receiver"


def probe_secrets(config: Config) -> list[Finding]:
    """A warning for each secret that protects nothing; empty if all are good."""
    findings: list[Finding] = []
    keys = {
        endpoint.name: {_key(secret) for secret in endpoint.secrets}
        for endpoint in config.endpoints
        if endpoint.signing == "standard"
    }
    for name, own in keys.items():
        weak = next(filter(None, map(weakness, sorted(own))), None)
        if weak:
            findings.append(Finding(f"secret {name}", "warning", f"{weak}: anyone can sign with it; {_CURE}"))
        others = [other for other, theirs in keys.items() if other != name and own & theirs]
        if others:
            detail = f"{', '.join(others)} has the same: a receiver that knows one can sign for the other; {_CURE}"
            findings.append(Finding(f"secret {name}", "warning", detail))
    return findings + _of_livekit(config.livekit)


def weakness(key: bytes) -> str | None:
    """Why a key can be guessed; ``None`` if it looks random."""
    steps = {(after - before) % 256 for before, after in pairwise(key)}
    if not any(key):
        return "all zero"
    if len(set(key)) <= _FEW_BYTES or len(steps) == 1:
        return "a few bytes over and over, or in a row"
    if base64.b64encode(key).decode() in _PUBLISHED:
        return "an example of the documentation"
    if any(word in key.lower() for word in _WORDS):
        return "made of words"
    return None


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4))


def _of_livekit(livekit: LiveKit) -> list[Finding]:
    secret = livekit.api_secret.get_secret_value().encode() if livekit.api_secret else b""
    if not secret or len(secret) >= _LIVEKIT_BYTES or _on_this_machine(livekit):
        return []
    detail = f"shorter than {_LIVEKIT_BYTES} characters, which LiveKit asks for; make a new key for the server"
    return [Finding("secret livekit", "warning", detail)]


def _on_this_machine(livekit: LiveKit) -> bool:
    host = urlsplit(livekit.url or "").hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
