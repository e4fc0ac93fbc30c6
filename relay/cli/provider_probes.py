"""Checks the speech and realtime providers: plugin installed, and key accepted where that can be checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from relay.capture.plugins import installing, is_installed, module_of
from relay.config.capture import Provider, Realtime


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    """``livekit``, ``stt deepgram``, ``endpoint crm``, ``secret crm``, ``outbox``."""
    status: Literal["ok", "warning", "failed", "not tried"]
    detail: str
    """What was found, and for a warning or a failure the cure."""


DEADLINE = 10.0
"""Seconds for one request."""

_DEEPGRAM = "https://api.deepgram.com/v1/listen"  # the plugin's own default
_OPENAI = "https://api.openai.com/v1"  # the plugin's own default
_DEFAULT_MODEL = "gpt-realtime"  # the same


def probe_vad(vad: Provider) -> Finding:
    subject = f"vad {vad.provider}"
    if vad.provider == "silero":
        return probe_installed(subject, "silero")
    return Finding(subject, "ok", "comes with livekit-agents" if vad.provider == "livekit" else "no voice activity")


async def probe_stt(stt: Provider, environ: Mapping[str, str], *, offline: bool) -> Finding:
    """``environ`` holds the keys that are not in the options."""
    subject = f"stt {stt.provider}"
    match stt.provider:
        case "none":
            return Finding(subject, "ok", "no transcripts")
        case "moonshine":
            return probe_installed(subject, "moonshine")
        case name:
            installed = probe_installed(subject, name)
    if installed.status == "failed" or offline:
        return installed
    if stt.provider != "deepgram":
        return Finding(subject, "not tried", f"{installed.detail}; the API key cannot be verified before its first use")
    return await _deepgram(subject, stt, environ)


def probe_installed(subject: str, name: str) -> Finding:
    """Whether the provider's module is installed."""
    if is_installed(name):
        return Finding(subject, "ok", f"{module_of(name)} is installed")
    return Finding(subject, "failed", f"{module_of(name)} is not installed; {installing(name)}")


async def _deepgram(subject: str, stt: Provider, environ: Mapping[str, str]) -> Finding:
    """List the key's projects, which is free. 401 is a wrong key; 403 a valid key without that permission."""
    key = stt.options.get("api_key") or environ.get("DEEPGRAM_API_KEY")
    if not key:
        return Finding(subject, "failed", "no key; set DEEPGRAM_API_KEY in .env, or use stt: {provider: moonshine}")
    parts = urlsplit(str(stt.options.get("base_url") or _DEEPGRAM))
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    url = urlunsplit((scheme, parts.netloc, f"{parts.path.rpartition('/')[0]}/projects", "", ""))
    match await _status(url, f"Token {key}"):
        case str(trouble):
            return Finding(subject, "failed", f"{parts.netloc}{trouble}")
        case 200 | 403:
            return Finding(subject, "ok", f"{parts.netloc} knows the key")
        case 401:
            return Finding(subject, "failed", f"{parts.netloc} refuses the key; correct DEEPGRAM_API_KEY")
        case status:
            return Finding(subject, "not tried", f"{parts.netloc} answered {status}, which says nothing about the key")


async def _status(url: str, authorization: str) -> int | str:
    """The status of a GET with this header; without an answer, what follows the host's name in words."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE), trust_env=True) as session,
            session.get(url, headers={"Authorization": authorization}) as response,
        ):
            return response.status
    except TimeoutError:
        return f": no answer within {DEADLINE:g} s"
    except (aiohttp.ClientError, ValueError) as error:
        return f" cannot be reached ({type(error).__name__})"


async def probe_realtime(realtime: Realtime, environ: Mapping[str, str], *, offline: bool) -> Finding:
    """``environ`` holds the keys that are not in the options."""
    subject = f"realtime {realtime.provider}"
    installed = probe_installed(subject, realtime.provider)
    if installed.status == "failed" or offline:
        return installed
    if realtime.provider != "openai" or "azure_deployment" in realtime.options:
        return Finding(subject, "not tried", f"{installed.detail}; the API key cannot be verified before its first use")
    return await _openai(subject, realtime, environ)


async def _openai(subject: str, realtime: Realtime, environ: Mapping[str, str]) -> Finding:
    """Request the model's description, which is free. 401 is a wrong key; 403 a valid key without that permission."""
    key = realtime.options.get("api_key") or environ.get("OPENAI_API_KEY")
    if not key:
        return Finding(subject, "failed", "no key; set OPENAI_API_KEY in .env")
    base = str(realtime.options.get("base_url") or environ.get("OPENAI_BASE_URL") or _OPENAI).rstrip("/")
    if base.startswith("ws"):
        base = base.replace("ws", "http", 1)
    host, model = urlsplit(base).netloc, realtime.model or _DEFAULT_MODEL
    match await _status(f"{base}/models/{model}", f"Bearer {key}"):
        case str(trouble):
            return Finding(subject, "failed", f"{host}{trouble}")
        case 200:
            return Finding(subject, "ok", f"{host} knows the key, and {model}")
        case 403:
            return Finding(subject, "ok", f"{host} knows the key")
        case 401:
            return Finding(subject, "failed", f"{host} refuses the key; correct OPENAI_API_KEY")
        case 404:
            return Finding(subject, "failed", f"{host} knows no model {model}; correct capture.realtime.model")
        case status:
            return Finding(subject, "not tried", f"{host} answered {status}, which says nothing about the key")
