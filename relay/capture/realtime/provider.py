"""Creates realtime models by name, configured to listen and never to answer."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import aiohttp
from livekit.agents import APIConnectOptions, inference, llm
from pydantic import BaseModel, ValidationError

from relay.capture.plugins import build, named_options, package_of, plugin, refuse_unknown
from relay.config.capture import Realtime
from relay.errors import ProviderError

KEY = "capture.realtime"

_SILENT: Mapping[str, bool] = {"create_response": False, "interrupt_response": False}
"""With both false the model never answers by itself, and still reports speech (OpenAI's reference)."""

_CONNECT_WITHIN_S = 4.0
"""Speech during an attempt is buffered for 30 s; a connection that hangs must cost no more than one attempt."""

T = TypeVar("T", bound=BaseModel)

_SPEAKS = ("modalities", "voice", "speed", "tool_choice")
"""Options about answers."""


class RealtimeFactory:
    """Creates a model per stream, so that its errors affect that stream only."""

    def __init__(self, provider: Realtime) -> None:
        """Import the plugin. Raises ProviderError: it is missing, or an option would let the model answer."""
        self.name = provider.provider
        self._factory = _factory(provider.provider)
        self._options = _listening(provider, self._factory)

    def build(self, http: aiohttp.ClientSession | None) -> llm.RealtimeModel:
        """A new model, whose sessions use ``http``; None: it will have no sessions.

        Raises ProviderError where it rejects its options or has no key.
        """
        given: dict[str, Any] = {
            # The tap restarts a session itself and replays the speech of the gap, unlike a plugin's own retries and its
            # renewal after some minutes, which would come in mid-speech.
            "conn_options": APIConnectOptions(max_retry=0, timeout=_CONNECT_WITHIN_S),
            "max_session_duration": None,
        }
        if http is not None:
            given["http_session"] = http
        return build(self._factory, self._options, KEY, **given)


def load_realtime(provider: Realtime | None) -> RealtimeFactory | None:
    """The factory, its plugin imported; None without a realtime model. Raises ProviderError."""
    return None if provider is None else RealtimeFactory(provider)


def _factory(name: str) -> Callable[..., llm.RealtimeModel]:
    if name == "livekit":
        return inference.RealtimeModel
    module = plugin(name, KEY, "openai")
    factory = getattr(getattr(module, "realtime", None), "RealtimeModel", None)
    if not (isinstance(factory, type) and issubclass(factory, llm.RealtimeModel)):
        raise ProviderError(
            f"{KEY}.provider: {package_of(name)} has no realtime model; choose another plugin, such as openai"
        )
    return factory


def _listening(provider: Realtime, factory: Callable[..., object]) -> dict[str, Any]:
    """The operator's options, plus those that keep the model from answering, where it has them."""
    options = dict(provider.options)
    for option in _SPEAKS:
        if option in options:
            raise ProviderError(f"{KEY}.options.{option}: the model never speaks here; take it out")
    if "model" in options:
        raise ProviderError(f"{KEY}.options.model: write it as {KEY}.model")
    if provider.model is not None:
        options["model"] = provider.model
    elif provider.provider == "livekit":
        raise ProviderError(f"{KEY}.model: name a model of LiveKit Inference, such as openai/gpt-realtime")
    known = named_options(factory)
    refuse_unknown(provider.options, known, f"{KEY}.options")
    if "modalities" in known:
        options["modalities"] = ["text"]
    if "turn_detection" in known:
        options["turn_detection"] = _turn_detection(options.get("turn_detection") or {})
    if isinstance(said := options.get("input_audio_transcription"), Mapping):
        from openai.types.realtime import AudioTranscription  # 70 ms, for those who use a realtime model

        options["input_audio_transcription"] = _typed(AudioTranscription, said, "input_audio_transcription")
    return options


def _turn_detection(wanted: object) -> BaseModel:
    from openai.types.realtime.realtime_audio_input_turn_detection import SemanticVad, ServerVad

    key = f"{KEY}.options.turn_detection"
    if not isinstance(wanted, Mapping):
        raise ProviderError(f"{key}: not a section; write it like {{type: server_vad, silence_duration_ms: 500}}")
    for option, value in (*_SILENT.items(), ("idle_timeout_ms", None)):
        if wanted.get(option, value) != value:
            raise ProviderError(f"{key}.{option}: the model never answers here; take it out")
    match kind := wanted.get("type", "server_vad"):
        case "server_vad":
            return _typed(ServerVad, {**wanted, "type": kind, **_SILENT}, "turn_detection")
        case "semantic_vad":
            return _typed(SemanticVad, {**wanted, **_SILENT}, "turn_detection")
        case _:
            raise ProviderError(f"{key}.type: not a possible value; one of server_vad, semantic_vad")


def _typed(model: type[T], values: Mapping[str, Any], option: str) -> T:
    key = f"{KEY}.options.{option}"
    refuse_unknown(values, model.model_fields, key)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise ProviderError(f"{key}.{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None
