"""Runs the probes of a configuration: LiveKit, detectors, outbox, endpoints, secrets."""

import asyncio
import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from shutil import disk_usage

import httpx

from relay.capture.detectors import Providers
from relay.cli.provider_probes import Finding, probe_realtime, probe_stt, probe_vad
from relay.cli.secret_probes import probe_livekit_secret, probe_secrets
from relay.config.api import listening
from relay.config.capture import Capture
from relay.config.endpoint import Endpoint
from relay.config.fields import split_address
from relay.config.models import Config, LiveKit, OutboxConfig
from relay.dispatch.http.aiohttp_transport import (
    CLOSED_IN_HANDSHAKE,
    NO_HANDSHAKE,
    NO_NAME_SERVER,
    REFUSED,
    UNREACHED,
    UNTRUSTED,
)
from relay.dispatch.http.errors import BY_RECEIVER, AttemptFailed, OutOfResources
from relay.dispatch.http.resolver import Resolver
from relay.dispatch.http.transport import open_connections
from relay.errors import ConfigError, LiveKitError, OutboxError, ProviderError
from relay.events.catalog import CATALOG, matches
from relay.events.operator import RelayEvent
from relay.outbox.log.processes import Role
from relay.outbox.opening import exposures, holds_log, log_file, may_create, require_commits, require_usable, shown
from relay.private_files import require_private_directory

DEADLINE = 10.0
"""Seconds for a request to LiveKit."""
_LITTLE = 100_000_000
"""Bytes left on a disk below which ``check`` warns."""


async def probe(config: Config, environ: Mapping[str, str], *, offline: bool, role: Role = "run") -> list[Finding]:
    """The findings in the order of the configuration, of what a process of this role needs. Offline, nothing leaves the
    machine."""
    heard, sending, outbox = await asyncio.gather(
        _probe_listening(config, environ, offline=offline) if role != "dispatch" else asyncio.sleep(0, []),
        _probe_sending(config, offline=offline) if role != "worker" else asyncio.sleep(0, []),
        asyncio.to_thread(probe_outbox, config.outbox, offline=offline),
    )
    secrets = probe_livekit_secret(config.livekit) if role == "worker" else probe_secrets(config)
    others = await asyncio.to_thread(exposures, config.outbox.url) if outbox.status == "ok" else []
    log = [outbox, *(Finding("outbox", "warning", each) for each in others)]
    log += await asyncio.to_thread(_probe_spill, config.outbox)
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
    return [*reached, *_probe_endpoints(config), *_probe_subscriptions(config), *_probe_egress(config)]


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


def _probe_endpoints(config: Config) -> list[Finding]:
    """A warning if there are none, unless they may be made over the HTTP API."""
    served = listening(config.api, config.admin)
    if config.endpoints or (served and served.api):
        return []
    return [Finding("endpoints", "warning", "there are none: events are kept in the log, and nothing is sent")]


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


def _probe_egress(config: Config) -> list[Finding]:
    """A warning for each endpoint that allows some networks and refuses none: its owner takes ``allow`` for a limit."""
    detail = "egress.allow changes nothing, because every network is allowed; add egress.public_only: true"
    return [
        Finding(f"endpoint {endpoint.name}", "warning", detail)
        for endpoint in config.endpoints
        if endpoint.egress.allow and not endpoint.egress.public_only
    ]


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
        return _probe(path, outbox.url)
    except OSError as error:  # a name that is too long, a folder without search permission
        return Finding("outbox", "failed", f"{path}: {error.strerror}; correct outbox.url")
    except OutboxError as error:
        return Finding("outbox", "failed", str(error))


def _probe_spill(outbox: OutboxConfig) -> list[Finding]:
    """A warning if events could not wait in the folder of ``outbox.spill``. Creates nothing."""
    if log_file(outbox.url) is not None:
        return []
    path = Path(outbox.spill.path).absolute()
    folder = next(each for each in (path, *path.parents) if os.path.lexists(each))
    try:
        if folder == path:
            require_private_directory(path)
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return []
        why = "this user may not write there" if folder.is_dir() else "it is no folder"
    except OSError as error:
        why = str(error.strerror)
    detail = f"{folder}: {why}: while the server is away, events wait in memory only; correct it or outbox.spill.path"
    return [Finding("outbox.spill", "warning", detail)]


def _probe_server(url: str) -> Finding:
    try:
        has_log = holds_log(url)
        if has_log:
            require_usable(url)
        if has_log or may_create(url):
            require_commits(url)
            found = "is there, with a log" if has_log else "is there; the log will be made"
            return Finding("outbox", "ok", f"{shown(url)} {found}")
    except OutboxError as error:
        return Finding("outbox", "failed", str(error))
    return Finding("outbox", "failed", f"{shown(url)}: its user may not create tables; grant CREATE on the schema")


def _probe(path: Path, url: str) -> Finding:
    if path.is_dir():
        return Finding("outbox", "failed", f"{path} is a folder; outbox.url names a file")
    if os.path.lexists(path):
        if path.is_symlink() or not path.is_file():
            return Finding("outbox", "failed", f"{path} is no regular file; move it away, or correct outbox.url")
        writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        if writable and holds_log(url):
            require_usable(url)
        return _finding(writable, f"{path} is there and writable", path)
    folder = path.absolute().parent
    if not folder.exists() and not folder.parent.exists():  # a relay makes one folder, and no more
        return Finding("outbox", "failed", f"there is no folder {folder}; create it, or correct outbox.url")
    folder = folder if folder.exists() else folder.parent
    return _finding(folder.is_dir() and os.access(folder, os.W_OK | os.X_OK), f"{path} will be made", folder)


def _finding(writable: bool, detail: str, place: Path) -> Finding:
    if not writable:
        return Finding("outbox", "failed", f"{place} is not writable for this user; change its owner or outbox.url")
    if (free := disk_usage(place).free) < _LITTLE:
        left = f"but its disk has only {free // 1_000_000} MB left: free some space"
        return Finding("outbox", "warning", f"{detail}, {left}")
    return Finding("outbox", "ok", detail)


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
            reason = why.removeprefix(UNTRUSTED)
            return f"{where}: its certificate is not accepted{reason}{_authority(endpoint, reason)}"
        case "tls" if why == NO_HANDSHAKE:
            return f"{where}: no TLS handshake within {seconds}; is the url rather http://?"
        case "tls" if why.startswith(BY_RECEIVER):
            return f"{where}: {why}"
        case "tls" if why == CLOSED_IN_HANDSHAKE:
            return f"{where}: {why}; does it demand a client certificate, in tls.cert, or is the url rather http://?"
        case "tls":
            return f"{where} does not speak TLS; is the url rather http://?"
        case _:
            return f"{where}: {why}"


def _authority(endpoint: Endpoint, reason: str) -> str:
    """What to do about a certificate whose signer is not trusted; empty where that is not the reason."""
    if "issuer" not in reason and "self-signed" not in reason:
        return ""
    if endpoint.tls.ca:
        return "; it is not signed by the authority in tls.ca"
    return "; is it signed by a private authority? Name that one's certificate in tls.ca"
