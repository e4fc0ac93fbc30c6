"""Checks the realtime model: its plugin is installed, its key is accepted, it exists."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from relay.cli.probes.finding import Finding
from relay.cli.probes.speech import DEADLINE, probe_installed
from relay.config.capture import Realtime

_OPENAI = "https://api.openai.com/v1"  # the plugin's own default
_DEFAULT_MODEL = "gpt-realtime"  # the same


async def probe_realtime(realtime: Realtime, environ: Mapping[str, str], *, offline: bool) -> Finding:
    """``environ`` holds the keys that are not in the options."""
    subject = f"realtime {realtime.provider}"
    installed = probe_installed(subject, realtime.provider)
    if installed.status == "failed" or offline:
        return installed
    if realtime.provider != "openai" or "azure_deployment" in realtime.options:
        return Finding(subject, "not tried", f"{installed.detail}; its key shows only when someone speaks")
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
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE), trust_env=True) as session,
            session.get(f"{base}/models/{model}", headers={"Authorization": f"Bearer {key}"}) as response,
        ):
            status = response.status
    except TimeoutError:
        return Finding(subject, "failed", f"{host}: no answer within {DEADLINE:g} s")
    except (aiohttp.ClientError, ValueError) as error:
        return Finding(subject, "failed", f"{host} cannot be reached ({type(error).__name__})")
    match status:
        case 200:
            return Finding(subject, "ok", f"{host} knows the key, and {model}")
        case 403:
            return Finding(subject, "ok", f"{host} knows the key")
        case 401:
            return Finding(subject, "failed", f"{host} refuses the key; correct OPENAI_API_KEY")
        case 404:
            return Finding(subject, "failed", f"{host} knows no model {model}; correct capture.realtime.model")
        case _:
            return Finding(subject, "not tried", f"{host} answered {status}, which says nothing about the key")
