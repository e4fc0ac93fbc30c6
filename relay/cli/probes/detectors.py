"""Will the detectors start: they are made here as ``run`` makes them."""

from relay.capture.providers.detectors import Providers
from relay.cli.probes.finding import Finding
from relay.config.capture import Capture
from relay.errors import ProviderError


async def probe_options(capture: Capture, *, keys: bool) -> list[Finding]:
    """What is wrong with their options, if anything; with ``keys``, which have to be there then, also their values."""
    try:
        providers = Providers(capture.vad, capture.stt, capture.realtime)
        try:
            if keys:
                providers.detectors()
        finally:
            await providers.aclose()
    except ProviderError as error:
        return [Finding("detectors", "failed", str(error))]
    return []
