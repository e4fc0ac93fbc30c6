"""A realtime model as config.yaml names it: what it runs with, and what is refused because it would let it speak."""

from typing import Any

import pytest

from relay.capture.detectors import Providers
from relay.capture.realtime.provider import load_realtime
from relay.config.capture import Capture, Realtime
from relay.errors import ProviderError

pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")

KEY = {"api_key": "sk-a-key-that-nobody-may-see"}


def detectors(realtime: Realtime) -> Any:
    capture = Capture(realtime=realtime)
    return Providers(capture.vad, capture.stt, capture.realtime).detectors()


def test_it_runs_alone_and_is_called_by_its_model() -> None:
    found = detectors(Realtime(provider="openai", model="gpt-realtime-mini", options=KEY))
    assert (found.realtime, found.vad, found.stt) == ("openai/gpt-realtime-mini", None, None)
    assert found.shared_vad is found.new_stt is None


def test_livekits_gateway_has_realtime_models_too() -> None:
    options = {**KEY, "api_secret": "a-secret-that-nobody-may-see-either"}
    found = detectors(Realtime(provider="livekit", model="openai/gpt-realtime", options=options))
    assert found.realtime == "livekit/openai/gpt-realtime"


def test_none_beside_it_says_the_same() -> None:
    capture = Capture.model_validate({"realtime": "openai", "vad": "none", "stt": "none"})
    assert capture.realtime == Realtime(provider="openai")


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        ({"provider": "no-such"}, "provider: no-such is not installed: pip install livekit-plugins-no-such"),
        ({"provider": "NO!"}, "provider: 'NO!' is not the name of a LiveKit plugin, such as openai"),
        ({"provider": "deepgram"}, "provider: livekit-plugins-deepgram has no realtime model; choose another plugin"),
        ({"provider": "livekit"}, "model: name a model of LiveKit Inference, such as openai/gpt-realtime"),
        ({"options": {"model": "x"}}, "options.model: write it as capture.realtime.model"),
        ({"options": {"temprature": 1}}, "options.temprature: there is no such option; known are: api_key, "),
        ({"options": {"voice": "marin"}}, "options.voice: the model never speaks here; take it out"),
        ({"options": {"modalities": ["audio"]}}, "options.modalities: the model never speaks here; take it out"),
        (
            {"options": {"turn_detection": {"create_response": True}}},
            "options.turn_detection.create_response: the model never answers here; take it out",
        ),
        (
            {"options": {"turn_detection": {"idle_timeout_ms": 5000}}},
            "options.turn_detection.idle_timeout_ms: the model never answers here; take it out",
        ),
        (
            {"options": {"turn_detection": {"type": "vad"}}},
            "options.turn_detection.type: not a possible value; one of server_vad, semantic_vad",
        ),
        (
            {"options": {"turn_detection": {"silence_ms": 300}}},
            "options.turn_detection.silence_ms: there is no such option; known are: create_response, ",
        ),
        ({"options": {"turn_detection": "none"}}, "options.turn_detection: not a section; write it like {type: server"),
        (
            {"options": {"turn_detection": {"threshold": "loud"}}},
            "options.turn_detection.threshold: Input should be a valid number",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_its_key(wanted: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ProviderError) as error:
        load_realtime(Realtime.model_validate({"provider": "openai", **wanted}))
    assert str(error.value).startswith(f"capture.realtime.{refusal}")
    assert "\n" not in str(error.value)


def test_without_a_key_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ProviderError, match=r"^capture\.realtime: .*OPENAI_API_KEY environment variable$"):
        detectors(Realtime(provider="openai"))


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ({}, {"type": "server_vad"}),
        ({"silence_duration_ms": 300}, {"type": "server_vad", "silence_duration_ms": 300}),
        ({"type": "semantic_vad", "eagerness": "high"}, {"type": "semantic_vad", "eagerness": "high"}),
    ],
)
def test_however_turns_are_detected_the_model_never_answers(wanted: dict[str, Any], sent: dict[str, Any]) -> None:
    options = {**KEY, "turn_detection": wanted, "input_audio_transcription": {"model": "gpt-4o-transcribe"}}
    factory = load_realtime(Realtime(provider="openai", options=options))
    assert factory is not None
    model: Any = factory.build(None)
    silent = {"create_response": False, "interrupt_response": False}
    assert model._opts.turn_detection.model_dump(exclude_unset=True) == {**sent, **silent}
    assert model._opts.modalities == ["text"]
    assert model._opts.input_audio_transcription.model == "gpt-4o-transcribe"
