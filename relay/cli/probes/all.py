"""Every probe that a configuration calls for, at once."""

import asyncio
from collections.abc import Mapping

from relay.cli.probes.endpoint import probe_endpoint
from relay.cli.probes.finding import Finding
from relay.cli.probes.livekit import probe_livekit
from relay.cli.probes.outbox import probe_outbox
from relay.cli.probes.speech import probe_stt, probe_vad
from relay.config.models import Config


async def probe(config: Config, environ: Mapping[str, str], *, offline: bool) -> list[Finding]:
    """The findings in the order of the configuration. Offline, nothing leaves the machine."""
    stt = probe_stt(config.capture.stt, environ, offline=offline)
    here = [probe_vad(config.capture.vad), probe_outbox(config.outbox)]
    if offline:
        skipped = [Finding(f"endpoint {each.name}", "not tried", "--offline") for each in config.endpoints]
        return [Finding("livekit", "not tried", "--offline"), here[0], await stt, here[1], *skipped]
    livekit, heard, *endpoints = await asyncio.gather(
        probe_livekit(config.livekit), stt, *(probe_endpoint(endpoint) for endpoint in config.endpoints)
    )
    return [livekit, here[0], heard, here[1], *endpoints]
