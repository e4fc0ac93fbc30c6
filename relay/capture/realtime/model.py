"""A realtime model that only listens."""

from livekit.agents import llm

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import Outages
from relay.capture.realtime.session import ListeningRealtimeSession
from relay.capture.realtime.speech import Report


class ListeningModel(llm.RealtimeModel):
    """The agent session's stand-in for ``inner``: input passes through, output does not. The session gets speech and
    text. It does not get errors, on which it would close itself, or metrics, all of which it would keep."""

    def __init__(
        self, inner: llm.RealtimeModel, name: str, *, report: Report, guard: ErrorGuard, outages: Outages
    ) -> None:
        super().__init__(
            capabilities=llm.RealtimeCapabilities(
                message_truncation=False,
                turn_detection=True,
                user_transcription=inner.capabilities.user_transcription,
                auto_tool_reply_generation=False,
                audio_output=False,
                manual_function_calls=False,
            )
        )
        self._inner = inner
        self._name = name
        self._report = report
        self._guard = guard
        self._outages = outages
        self._session: ListeningRealtimeSession | None = None

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    def session(self, *, turn_detection_disabled: bool = False) -> ListeningRealtimeSession:
        self._session = ListeningRealtimeSession(
            self, self._inner, self._name, report=self._report, guard=self._guard, outages=self._outages
        )
        return self._session

    def cut_off(self) -> None:
        """The audio has stopped."""
        if self._session is not None:
            self._session.cut_off()

    async def aclose(self) -> None:
        await self._inner.aclose()
