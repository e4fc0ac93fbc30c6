"""The speech providers tested with each release, and the properties of each."""

from dataclasses import dataclass
from importlib.util import find_spec

from relay.config.capture import Provider
from tests.support.providers.assemblyai import AssemblyAI
from tests.support.providers.cartesia import CartesiaInk2, CartesiaInkWhisper
from tests.support.providers.deepgram import Deepgram
from tests.support.providers.deepgram_flux import DeepgramFlux
from tests.support.providers.inference import Inference
from tests.support.providers.stt_script import Script
from tests.support.providers.stt_server import SttServer


@dataclass(frozen=True)
class Known:
    """``shrugs``: its plugin skips a frame that it cannot parse; otherwise it fails, and is restarted. ``wrong_key``
    and ``busy`` are the operator's messages."""

    provider: str
    stand_in: type[SttServer] | None
    interims: bool = True
    times: bool = True
    words: bool = True
    confidence: bool = True
    shrugs: bool = True
    wrong_key: str = "APIStatusError 401 (wrong API key?)"
    busy: str = "APIStatusError 429 (too many requests)"

    @property
    def installed(self) -> bool:
        if self.provider == "livekit":
            return True
        module = f"livekit.plugins.{self.provider}" if self.stand_in is not None else "moonshine_voice"
        return find_spec(module) is not None

    def server(self, *scripts: Script) -> SttServer:
        assert self.stand_in is not None
        return self.stand_in(scripts)

    def config(self, server: SttServer | None) -> Provider:
        return Provider(provider=self.provider, options=server.options if server is not None else {})


PROVIDERS = {
    "deepgram": Known("deepgram", Deepgram),
    "deepgram-flux": Known("deepgram", DeepgramFlux),
    "assemblyai": Known(
        "assemblyai",
        AssemblyAI,
        wrong_key="APIStatusError 1008 (wrong API key, or an account that may not?)",
        busy="APIStatusError 3009 (too many sessions)",
    ),
    "cartesia-ink-2": Known("cartesia", CartesiaInk2, times=False, words=False, confidence=False, shrugs=False),
    "cartesia-ink-whisper": Known("cartesia", CartesiaInkWhisper, interims=False, confidence=False, shrugs=False),
    "livekit": Known("livekit", Inference, shrugs=False),
    "moonshine": Known("moonshine", None, words=False, confidence=False),
}
