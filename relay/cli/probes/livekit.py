"""Checks that the LiveKit server accepts the credentials."""

import asyncio

from relay.cli.probes.finding import Finding
from relay.config.models import LiveKit
from relay.errors import ConfigError, LiveKitError

DEADLINE = 10.0
"""Seconds."""


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
