"""Describes speech recognition to a session without running it there."""

from typing import Any

from livekit.agents import APIConnectOptions, NotGivenOr, stt, utils
from livekit.agents.types import NOT_GIVEN


class DeclaredStt(stt.STT[Any]):
    """Gives the session the provider's description without the provider itself: the session would count the provider's
    errors until it closes itself, and keep each of its metrics for as long as it lives. The tap runs the provider."""

    def __init__(self, inner: stt.STT[Any]) -> None:
        super().__init__(capabilities=inner.capabilities)
        self._inner = inner

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    def prewarm(self) -> None:
        self._inner.prewarm()

    async def _recognize_impl(
        self, buffer: utils.AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        raise NotImplementedError("the agent's stt_node listens")
