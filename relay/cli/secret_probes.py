"""Probes the secrets of a configuration: who can read the files with them, and whether they can be guessed."""

import base64
import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from relay.cli.provider_probes import Finding
from relay.config.document import read_document
from relay.config.models import Config, LiveKit
from relay.dispatch.signing import parse_secret
from relay.outbox.opening import log_file
from relay.private_files import exposed

_LOG_PARTS = ("", "-wal", "-shm", ".lock", ".relay")
_SECRET_KEY = re.compile(r"secret|api_?key|token|password|authorization", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{\w+(:-)?\}")
_URL_WITH_SECRET = re.compile(r"https?://[^/?#]*@|https?://[^#]*\?|postgresql://[^/?#]*:[^/?#]*@")

_FEW_BYTES = 8
"""24 random bytes practically never contain so few different ones."""

_PUBLISHED = frozenset({"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"})
"""The examples in the documentation of Standard Webhooks and of its libraries."""

_WORDS = (b"secret", b"password", b"changeme", b"change-me", b"change_me", b"example")

_LIVEKIT_BYTES = 32
"""LiveKit's own server requires this of a secret."""

_CURE = "empty its variable and run `speech-relay init`, which makes one, and give it to the receiver"


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


def probe_secrets(config: Config) -> list[Finding]:
    """A warning for each secret that protects nothing; empty if all are good."""
    findings: list[Finding] = []
    keys = {
        endpoint.name: {parse_secret(secret) for secret in endpoint.secrets}
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
    return findings + probe_livekit_secret(config.livekit)


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


def probe_livekit_secret(livekit: LiveKit) -> list[Finding]:
    """A warning if the LiveKit project's secret is too short, unless its server is on this machine."""
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
