"""``capture.vad.options``: what they change, and what an operator is told of those that cannot be."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import inference
from livekit.plugins import silero

from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Providers
from relay.capture.vad.provider import ACTIVATION
from relay.config.capture import Provider
from relay.errors import ProviderError
from relay.speech.observations import VadStarted
from tests.support.audio.speech import Heard, listening, speech

NONE = Provider(provider="none")

both = pytest.mark.parametrize("name", ["silero", "livekit"])


@both
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_silence_duration", "0.5s"),
        ("min_silence_duration", None),
        ("min_silence_duration", -1),
        ("min_silence_duration", float("nan")),
        ("min_speech_duration", "0.2"),
        ("min_speech_duration", float("inf")),
        ("activation_threshold", 7),
        ("activation_threshold", -0.1),
        ("activation_threshold", "high"),
        ("activation_threshold", True),
        ("deactivation_threshold", 1.5),
        ("deactivation_threshold", None),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_key(name: str, option: str, value: object) -> None:
    with pytest.raises(ProviderError) as raised:
        Providers(Provider(provider=name, options={option: value}), NONE)
    assert str(raised.value).startswith(f"capture.vad.options.{option}: not a possible value; write a ")


def test_words_of_the_refusal() -> None:
    for option, says in (
        ("min_speech_duration", "write a number of seconds, such as 0.05, 0 or more, without quotes"),
        ("activation_threshold", "write a probability, such as 0.5, from 0 to 1, without quotes"),
    ):
        with pytest.raises(ProviderError, match=says):
            Providers(Provider(provider="silero", options={option: "1"}), NONE)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ProviderError, match=r"^capture\.vad: .*not found"):
        Providers(Provider(provider="silero", options={"onnx_file_path": "/nope.onnx"}), NONE)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ProviderError, match=r"^capture\.vad: InvalidProtobuf: .*Load model from … failed"):
        Providers(Provider(provider="silero", options={"onnx_file_path": str(tmp_path / "model.onnx")}), NONE)


@both
@pytest.mark.parametrize(
    "options", [{"deactivation_threshold": 0.6}, {"deactivation_threshold": 0.4, "activation_threshold": 0.3}]
)
def test_speech_is_not_over_before_it_begins(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match=r"^capture\.vad\.options\.deactivation_threshold: is above activation"):
        Providers(Provider(provider=name, options=options), NONE)


def test_both_detectors_have_the_same_activation_threshold() -> None:
    for factory in (silero.VAD.load, inference.VAD):
        assert inspect.signature(factory).parameters["activation_threshold"].default == ACTIVATION


@both
@pytest.mark.parametrize(
    "options", [{"activation_threshold": 1}, {"min_silence_duration": 0, "min_speech_duration": 0.0}]
)
async def test_the_limits_themselves_are_possible(name: str, options: dict[str, Any]) -> None:
    providers = Providers(Provider(provider=name, options=options), NONE)
    assert providers.detectors().vad == name
    await providers.aclose()


async def starts(name: str, options: Mapping[str, float]) -> int:
    heard = Heard()
    vad = Provider(provider=name, options=dict(options))
    async with listening(WavSource(speech("beckett.wav"), realtime=False), heard, vad=vad) as session:
        await session.ended()
        await session.close("unpublished")
    return len(heard.of(VadStarted))


@pytest.mark.speech
@both
@pytest.mark.parametrize(
    ("options", "pieces"),
    [
        ({}, 6),
        # its six pieces are 0.7 to 0.9 s long
        ({"min_speech_duration": 1.5}, 0),
        ({"activation_threshold": 1.0}, 0),
        # and have pauses of 0.6 to 0.9 s between them
        ({"min_silence_duration": 3.0}, 1),
    ],
)
async def test_thresholds_change_what_is_heard(name: str, options: dict[str, float], pieces: int) -> None:
    assert await starts(name, options) == pieces
