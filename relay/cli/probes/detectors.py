"""Checks that the detectors start, by creating them as ``run`` does."""

from relay.capture.detectors import Providers
from relay.cli.probes.finding import Finding
from relay.config.capture import Capture
from relay.errors import ProviderError


async def probe_options(capture: Capture) -> list[Finding]:
    """Errors in their options or missing keys, if any. No key leaves this machine."""
    try:
        providers = Providers(capture.vad, capture.stt, capture.realtime)
        try:
            providers.detectors()
        finally:
            await providers.aclose()
    except ProviderError as error:
        return [Finding("detectors", "failed", str(error))]
    return []
