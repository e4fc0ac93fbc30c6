"""Detectors by name, and what an operator is told where one cannot be had."""

import builtins
import sys
import types
from importlib.metadata import version
from typing import Any

import pytest
from livekit.agents import APIConnectOptions, LanguageCode, NotGivenOr, stt, utils
from livekit.agents.types import NOT_GIVEN

from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Providers
from relay.config.capture import Provider
from relay.errors import ProviderError
from relay.speech.observations import SttEnded, SttStarted, SttTranscript, VadStarted
from tests.support.audio.speech import Heard, listening, needs_moonshine, speech

NONE = Provider(provider="none")
SILERO = Provider(provider="silero")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPGRAM_API_KEY", raising=False)


@pytest.mark.parametrize("vad", ["silero", "livekit"])
async def test_names_and_silence_for_events(vad: str) -> None:
    providers = Providers(
        Provider(provider=vad, options={"min_silence_duration": 0.8}),
        Provider(provider="deepgram", options={"api_key": "k", "model": "nova-2"}),
    )
    detectors = providers.detectors()
    await providers.aclose()

    assert (detectors.vad, detectors.stt) == (vad, "deepgram/nova-2")
    assert detectors.tail_s == pytest.approx(1.5)


@needs_moonshine
async def test_moonshine_needs_no_key() -> None:
    providers = Providers(NONE, Provider(provider="moonshine"))
    detectors = providers.detectors()
    await providers.aclose()

    assert (detectors.vad, detectors.stt, detectors.shared_vad) == (None, "moonshine/tiny-en", None)


async def test_a_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "k")
    providers = Providers(SILERO, Provider(provider="deepgram"))

    assert providers.detectors().stt == "deepgram/nova-3"

    await providers.aclose()


@pytest.mark.parametrize(
    ("vad", "stt_", "says"),
    [
        (Provider(provider="webrtc"), NONE, "capture.vad.provider: webrtc is not known; choose silero, livekit or no"),
        (NONE, NONE, "capture.vad and capture.stt are both none"),
        (Provider(provider="silero", options={"treshold": 1}), NONE, "capture.vad.options.treshold: there is no such"),
        (Provider(provider="livekit", options={"model": "x"}), NONE, "capture.vad: Unknown VAD model: 'x'"),
        (SILERO, Provider(provider="gladia"), "capture.stt.provider: gladia is not installed: pip install livekit-p"),
        (SILERO, Provider(provider="silero"), "capture.stt.provider: livekit-plugins-silero has no speech recognition"),
        (SILERO, Provider(provider="../etc"), "capture.stt.provider: '../etc' is not the name of a LiveKit plugin"),
        (SILERO, Provider(provider="deepgram"), "capture.stt: Deepgram API key is required"),
        (
            SILERO,
            Provider(provider="deepgram", options={"api_key": "k", "modle": "nova-3"}),
            "capture.stt.options.modle: there is no such option; known are: api_key,",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_had_is_one_line_with_its_key(vad: Provider, stt_: Provider, says: str) -> None:
    with pytest.raises(ProviderError) as raised:
        Providers(vad, stt_).detectors()

    assert str(raised.value).startswith(says)
    assert "\n" not in str(raised.value)


def test_a_plugin_is_installed_in_the_version_that_goes_with_livekit_agents() -> None:
    with pytest.raises(ProviderError) as raised:
        Providers(SILERO, Provider(provider="speechmatics_x"))
    assert str(raised.value).endswith(f": pip install livekit-plugins-speechmatics-x=={version('livekit-agents')}")


def test_a_refused_value_does_not_show_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*, api_key: str) -> None:
        raise ValueError(f"bad key: {api_key}")

    from relay.capture.plugins import build

    with pytest.raises(ProviderError, match=r"^capture\.stt: bad key: …$"):
        build(refuse, {"api_key": "0123456789"}, "capture.stt")


def test_moonshine_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "moonshine_voice":
            raise ModuleNotFoundError(name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)

    with pytest.raises(ProviderError, match=r"pip install '\.\[moonshine\]' in a clone of speech-relay"):
        Providers(SILERO, Provider(provider="moonshine"))


class PieceStt(stt.STT[Any]):
    """A provider that takes whole pieces of audio, as an outside plugin would come."""

    def __init__(self, *, http_session: object = None) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=False, interim_results=False))
        self.http_session = http_session

    async def _recognize_impl(
        self, buffer: utils.AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        assert self.http_session is not None, "the relay's own session, without LiveKit's limit"
        said = stt.SpeechData(language=LanguageCode("en"), text="piece", start_time=0.5, end_time=1.0)
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[said])


async def test_a_plugin_without_streams_hears_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = types.ModuleType("livekit.plugins.pieces")
    vars(plugin)["STT"] = PieceStt
    monkeypatch.setitem(sys.modules, "livekit.plugins.pieces", plugin)
    heard = Heard()

    async with listening(
        WavSource(speech("beckett.wav"), realtime=False), heard, stt=Provider(provider="pieces")
    ) as session:
        await session.ended()
        await session.close("unpublished")

    finals = heard.of(SttTranscript)
    assert [said.text for said in finals] == ["piece"] * 6
    # Its times count from the start of each piece.
    assert {(said.start_ms, said.end_ms) for said in finals} == {(None, None)}
    # The cutting is done by a detector of its own, so that no event of the tapped one comes twice.
    assert len(heard.of(VadStarted)) == len(heard.of(SttStarted)) == len(heard.of(SttEnded)) == 6


def test_options_are_proved_without_loading_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr("moonshine_voice.Transcriber", lambda **_: loaded.append(None))
    Providers(NONE, Provider(provider="moonshine"), models=False).detectors()
    assert loaded == []
    with pytest.raises(ProviderError, match="no_such_option"):
        Providers(NONE, Provider(provider="moonshine", options={"no_such_option": 1}), models=False)
