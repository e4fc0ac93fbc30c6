"""Checks that no secret is a placeholder or shared with another endpoint."""

import base64
from ipaddress import ip_address
from itertools import pairwise
from urllib.parse import urlsplit

from relay.cli.probes.finding import Finding
from relay.config.models import Config, LiveKit

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
