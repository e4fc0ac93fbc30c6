"""Creates speech recognition providers by name."""

from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
from livekit.agents import inference, stt

from relay.capture.plugins import build, package_of, plugin, prove_known
from relay.capture.stt.moonshine import load_moonshine
from relay.config.capture import Provider
from relay.errors import ProviderError

KEY = "capture.stt"


class SttFactory(Protocol):
    """Creates a provider per stream."""

    @property
    def name(self) -> str: ...

    @property
    def paced(self) -> bool:
        """Whether its providers report processed audio, as RECOGNITION_USAGE after the results."""
        ...

    def build(self, http: aiohttp.ClientSession | None) -> stt.STT[Any]:
        """A new provider, whose streams use ``http``; None: it will have no streams.

        Raises ProviderError where it rejects its options or has no key.
        """
        ...

    def close(self) -> None:
        """Release the resources that its providers share."""
        ...


def load_stt(provider: Provider, *, models: bool = True) -> SttFactory | None:
    """The factory with its plugin imported and, with ``models``, its model loaded; None for ``none``.

    Raises ProviderError.
    """
    match provider.provider:
        case "none":
            return None
        case "moonshine":
            return load_moonshine(provider.options, KEY, model=models)
        case "livekit":
            return PluginStt("livekit", _gateway(provider.options), provider.options)
        case name:
            return PluginStt(name, _plugin(name, provider.options), provider.options)


class PluginStt:
    """A LiveKit plugin, or LiveKit's own gateway to many providers."""

    paced = False
    """Plugins report usage for billing, some of it before the transcript."""

    def __init__(self, name: str, factory: Callable[..., stt.STT[Any]], options: dict[str, Any]) -> None:
        """Raises ProviderError for an option that the plugin does not know."""
        prove_known(factory, options, KEY)
        self.name = name
        self._factory = factory
        self._options = options

    def build(self, http: aiohttp.ClientSession | None) -> stt.STT[Any]:
        given = {} if http is None else {"http_session": http}
        return build(self._factory, self._options, KEY, **given)

    def close(self) -> None:
        pass


def _gateway(options: dict[str, Any]) -> Callable[..., stt.STT[Any]]:
    if not options.get("model"):
        raise ProviderError(f"{KEY}.options.model: name a model of LiveKit Inference, such as deepgram/nova-3")
    return inference.STT


def _plugin(name: str, options: dict[str, Any]) -> Callable[..., stt.STT[Any]]:
    factory = getattr(plugin(name, KEY, "deepgram"), _class(name, options), None)
    if not (isinstance(factory, type) and issubclass(factory, stt.STT)):
        raise ProviderError(f"{KEY}.provider: {package_of(name)} has no speech recognition; choose another plugin")
    return factory


def _class(name: str, options: dict[str, Any]) -> str:
    # Deepgram's flux models use another protocol, for which its plugin has a separate class.
    return "STTv2" if name == "deepgram" and str(options.get("model", "")).startswith("flux") else "STT"
