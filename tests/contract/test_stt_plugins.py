"""Speech recognition by name: which plugin, which of its classes, and what an operator is told."""

import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Providers
from relay.config.capture import Provider
from relay.errors import ProviderError
from relay.speech.observations import SttEnded, SttStarted, SttTranscript
from tests.support.audio.speech import Heard, listening, speech

NONE = Provider(provider="none")
SILERO = Provider(provider="silero")

PLUGIN = """
from livekit.agents import LanguageCode, stt
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN


class STT(stt.STT):
    def __init__(self, *, word: str, http_session=None) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))
        self.word = word

    async def _recognize_impl(self, buffer, *, language=NOT_GIVEN, conn_options):
        raise NotImplementedError

    def stream(self, *, language=NOT_GIVEN, conn_options=DEFAULT_API_CONNECT_OPTIONS):
        return Stream(stt=self, conn_options=conn_options, sample_rate=16000)


class Stream(stt.SpeechStream):
    async def _run(self) -> None:
        heard = 0
        async for frame in self._input_ch:
            if isinstance(frame, self._FlushSentinel):
                continue
            assert frame.sample_rate == 16000
            before, heard = heard, heard + frame.samples_per_channel
            if before < 16000 <= heard:
                offset = self.start_time_offset
                said = stt.SpeechData(
                    LanguageCode("en"), self._stt.word, start_time=0.25 + offset, end_time=1.0 + offset
                )
                for kind in stt.SpeechEventType.START_OF_SPEECH, stt.SpeechEventType.FINAL_TRANSCRIPT:
                    self._event_ch.send_nowait(stt.SpeechEvent(kind, alternatives=[said]))
                self._event_ch.send_nowait(stt.SpeechEvent(stt.SpeechEventType.END_OF_SPEECH))
"""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in ("DEEPGRAM", "ASSEMBLYAI", "CARTESIA", "LIVEKIT", "LIVEKIT_INFERENCE"):
        monkeypatch.delenv(f"{provider}_API_KEY", raising=False)


@pytest.fixture
def some_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A plugin of somebody else's, installed as plugins are: a package in the namespace ``livekit.plugins``."""
    plugins = importlib.import_module("livekit.plugins")
    package = tmp_path / "echo_words"
    package.mkdir()
    (package / "__init__.py").write_text(PLUGIN)
    monkeypatch.setattr(plugins, "__path__", [*plugins.__path__, str(tmp_path)])
    yield "echo-words"
    sys.modules.pop("livekit.plugins.echo_words", None)


async def test_any_other_plugin_is_heard(some_plugin: str) -> None:
    heard = Heard()

    async with listening(
        WavSource(speech("beckett.wav"), realtime=False),
        heard,
        stt=Provider(provider=some_plugin, options={"word": "aye"}),
    ) as session:
        await heard.until(lambda heard: bool(heard.of(SttEnded)))
        await session.close("unpublished")

    assert heard.of(SttStarted)[0].at_ms == pytest.approx(250, abs=1)
    (said,) = heard.of(SttTranscript)
    assert (said.text, said.start_ms, said.end_ms, said.reliable) == ("aye", 250, 1000, True)


@pytest.mark.parametrize(
    ("provider", "options", "name"),
    [
        ("deepgram", {}, "deepgram/nova-3"),
        ("deepgram", {"model": "nova-2-phonecall"}, "deepgram/nova-2-phonecall"),
        ("deepgram", {"model": "flux-general-en", "eot_threshold": 0.8}, "deepgram/flux-general-en"),
        ("deepgram", {"model": "flux-general-multi", "language_hint": ["de"]}, "deepgram/flux-general-multi"),
        ("assemblyai", {}, "assemblyai/universal-3-6-pro"),
        ("cartesia", {}, "cartesia/ink-2"),
        ("cartesia", {"language": "de"}, "cartesia/ink-whisper"),
        ("livekit", {"model": "cartesia/ink-2", "api_secret": "s"}, "livekit/cartesia/ink-2"),
    ],
)
async def test_the_name_in_events(provider: str, options: dict[str, object], name: str) -> None:
    if provider in ("assemblyai", "cartesia"):
        pytest.importorskip(f"livekit.plugins.{provider}")
    providers = Providers(NONE, Provider(provider=provider, options={"api_key": "k", **options}))

    assert providers.detectors().stt == name

    await providers.aclose()


@pytest.mark.parametrize(
    ("stt", "says"),
    [
        ({"provider": "assemblyai"}, "capture.stt: AssemblyAI API key is required"),
        ({"provider": "cartesia"}, "capture.stt: Cartesia API key is required"),
        ({"provider": "livekit"}, "capture.stt.options.model: name a model of LiveKit Inference, such as deepgram/"),
        ({"provider": "livekit", "options": {"model": "deepgram/nova-3"}}, "capture.stt: api_key is required"),
        (
            {"provider": "deepgram", "options": {"model": "flux-general-en", "endpointing_ms": 25, "api_key": "k"}},
            "capture.stt.options.endpointing_ms: there is no such option; known are: api_key, audio_chunk_duration_ms",
        ),
        ({"provider": "silero"}, "capture.stt.provider: livekit-plugins-silero has no speech recognition"),
    ],
)
async def test_what_is_missing_is_one_line_with_its_key(stt: dict[str, object], says: str) -> None:
    if stt["provider"] in ("assemblyai", "cartesia"):
        pytest.importorskip(f"livekit.plugins.{stt['provider']}")
    with pytest.raises(ProviderError) as raised:
        Providers(SILERO, Provider.model_validate(stt)).detectors()

    assert str(raised.value).startswith(says)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("provider", "install"),
    [
        ("assemblyai", "pip install '.[assemblyai]' in a clone of speech-relay (the extra assemblyai)"),
        ("gladia", f"pip install livekit-plugins-gladia=={version('livekit-agents')}"),
        ("depgram", f"did you mean deepgram? If not: pip install livekit-plugins-depgram=={version('livekit-agents')}"),
    ],
)
def test_a_plugin_that_is_not_installed_says_what_to_install(
    provider: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = importlib.import_module("livekit.plugins")
    monkeypatch.setattr(plugins, "__path__", [])
    monkeypatch.delitem(sys.modules, f"livekit.plugins.{provider}", raising=False)

    with pytest.raises(ProviderError) as raised:
        Providers(NONE, Provider(provider=provider))

    assert str(raised.value) == f"capture.stt.provider: {provider} is not installed: {install}"
