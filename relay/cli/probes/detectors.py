"""Will the detectors start: they are made here as ``run`` makes them."""

from relay.capture.detectors import Providers
from relay.cli.probes.finding import Finding
from relay.config.capture import Capture
from relay.errors import ProviderError


async def probe_options(capture: Capture) -> list[Finding]:
    """What is wrong with their options or lacks of their keys, if anything. No key leaves this machine."""
    try:
        providers = Providers(capture.vad, capture.stt, capture.realtime)
        try:
            providers.detectors()
        finally:
            await providers.aclose()
    except ProviderError as error:
        return [Finding("detectors", "failed", str(error))]
    return []
