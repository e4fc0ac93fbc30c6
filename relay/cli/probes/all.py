"""Runs every probe that a configuration requires, concurrently."""

import asyncio
from collections.abc import Mapping

from relay.cli.probes.detectors import probe_options
from relay.cli.probes.endpoint import probe_endpoint
from relay.cli.probes.finding import Finding
from relay.cli.probes.livekit import probe_livekit, unset_keys
from relay.cli.probes.outbox import probe_outbox
from relay.cli.probes.realtime import probe_realtime
from relay.cli.probes.secrets import probe_secrets
from relay.cli.probes.speech import probe_stt, probe_vad
from relay.config.models import Config


async def probe(config: Config, environ: Mapping[str, str], *, offline: bool) -> list[Finding]:
    """The findings in the order of the configuration. Offline, nothing leaves the machine."""
    outbox = probe_outbox(config.outbox)
    if offline:
        skipped = [Finding(f"endpoint {each.name}", "not tried", "--offline") for each in config.endpoints]
        heard = await _probe_detectors(config, environ, offline=True)
        unset = unset_keys(config.livekit)
        livekit = Finding("livekit", "not tried", f"--offline; `run` needs {unset} too" if unset else "--offline")
        return [livekit, *heard, outbox, *skipped, *probe_secrets(config)]
    livekit, heard, endpoints = await asyncio.gather(
        probe_livekit(config.livekit),
        _probe_detectors(config, environ, offline=False),
        asyncio.gather(*(probe_endpoint(endpoint) for endpoint in config.endpoints)),
    )
    return [livekit, *heard, outbox, *endpoints, *probe_secrets(config)]


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
