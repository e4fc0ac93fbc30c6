"""Does the LiveKit server take the credentials."""

import asyncio

from relay.cli.probes.finding import Finding
from relay.config.models import LiveKit
from relay.errors import ConfigError, LiveKitError

DEADLINE = 10.0
"""Seconds."""


async def probe_livekit(livekit: LiveKit) -> Finding:
    """Ask the server something that only the right key and secret may."""
    from relay.capture.livekit.access import Access, verify_access  # the slowest import of all

    try:
        async with asyncio.timeout(DEADLINE):
            facts = await verify_access(Access.of(livekit))
    except TimeoutError:
        return Finding("livekit", "failed", f"no answer within {DEADLINE:g} s; correct LIVEKIT_URL")
    except (ConfigError, LiveKitError) as error:
        return Finding("livekit", "failed", str(error))
    return Finding("livekit", "ok", f"{facts.url} accepts the key and secret; {facts.rooms} rooms are open")
