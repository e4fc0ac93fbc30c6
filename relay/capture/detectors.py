"""Loads the configured detectors once per process, for all its streams."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from livekit.agents.llm import RealtimeModel
from livekit.agents.stt import STT, StreamAdapter
from livekit.agents.vad import VAD

from relay.capture.realtime.provider import RealtimeFactory, load_realtime
from relay.capture.stt.provider import SttFactory, load_stt
from relay.capture.vad.provider import MIN_SILENCE_S, bundled_vad, load_vad, min_silence_s
from relay.capture.vad.silero import TogetherVad
from relay.capture.vad.silero_network import Network, parts
from relay.config.capture import Provider, Realtime
from relay.errors import ProviderError

TAIL_BEYOND_SILENCE_S = 0.7
"""Silence after a source's end, added to what voice activity waits for: Moonshine runs every half second only."""

REALTIME_TAIL_S = 4.5
"""The same for a realtime model: OpenAI's ``semantic_vad`` of medium eagerness waits for 4 s at most."""


@dataclass(frozen=True, slots=True)
class Detectors:
    """The detectors of a stream. ``vad`` and ``stt`` are their names in events; None where there is no such
    detector."""

    vad: str | None
    stt: str | None
    shared_vad: VAD | None
    new_stt: Callable[[], STT[Any]] | None
    """A separate provider per stream, so that its errors affect that stream only."""
    tail_s: float
    paced: tuple[str, ...]
    """Detectors that report their progress."""
    realtime: str | None = None
    """The realtime model's name in events. With one, ``vad`` and ``stt`` are None."""
    new_realtime: Callable[[], RealtimeModel] | None = None


class Providers:
    """Loads the detectors. Blocking, and on the main thread, where LiveKit registers its plugins.

    Raises ProviderError for an unknown provider, a plugin that is not installed, or an unknown option.
    """

    def __init__(self, vad: Provider, stt: Provider, realtime: Realtime | None = None, *, models: bool = True) -> None:
        """Without ``models`` the options are validated, and a speech recognition model is loaded on first use."""
        self._realtime = load_realtime(realtime)
        self._vad = load_vad(vad) if realtime is None else None
        self._stt = load_stt(stt, models=models) if realtime is None else None
        if self._vad is None and self._stt is None and self._realtime is None:
            raise ProviderError("capture.vad and capture.stt are both none: nothing would be heard; choose one")
        self._vad_name = vad.provider if self._vad is not None else None
        self._min_silence_s = min_silence_s(vad) if self._vad is not None else MIN_SILENCE_S
        self._http: aiohttp.ClientSession | None = None
        self._network: Network | None = None
        self._heard = self._together(self._vad)

    def detectors(self) -> Detectors:
        """The detectors, for streams on the running event loop.

        Raises ProviderError where the speech recognition rejects its options or has no key.
        """
        if self._realtime is not None:
            return self._listening(self._realtime)
        factory = self._stt
        paced = ("vad",) if self._vad is not None else ()
        return Detectors(
            vad=self._vad_name,
            stt=None if factory is None else _name(factory),
            shared_vad=self._heard,
            new_stt=None if factory is None else lambda: self._new(factory),
            tail_s=self._min_silence_s + TAIL_BEYOND_SILENCE_S,
            paced=(*paced, "stt") if factory is not None and factory.paced else paced,
        )

    async def aclose(self) -> None:
        """Release the detectors' resources. Close their streams first."""
        if self._http is not None:
            await self._http.close()
        if self._stt is not None:
            self._stt.close()
        if self._network is not None:
            self._network.close()

    def _together(self, detector: VAD | None) -> VAD | None:
        if detector is None or (known := parts(detector)) is None:
            return detector
        session, thresholds = known
        self._network = Network(session)
        return TogetherVad(detector, self._network, thresholds)

    def _listening(self, factory: RealtimeFactory) -> Detectors:
        return Detectors(
            vad=None,
            stt=None,
            shared_vad=None,
            new_stt=None,
            tail_s=REALTIME_TAIL_S,
            paced=(),
            realtime=_name(factory),
            new_realtime=lambda: factory.build(self._session()),
        )

    def _new(self, factory: SttFactory) -> STT[Any]:
        provider = factory.build(self._session())
        if provider.capabilities.streaming:
            return provider
        # Not the tapped detector: the session would see each of its events twice.
        return StreamAdapter(stt=provider, vad=self._vad or bundled_vad())

    def _session(self) -> aiohttp.ClientSession:
        # LiveKit's own session stops at 50 connections per host.
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._http


def _name(factory: SttFactory | RealtimeFactory) -> str:
    model = factory.build(None).model
    return factory.name if model in ("", "unknown") else f"{factory.name}/{model}"
