"""Observes the realtime model of an embedding agent's session."""

from collections.abc import Callable
from typing import Any, TypeVar

from livekit import rtc
from livekit.agents import llm

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.realtime.speech import RealtimeSpeech, Report
from relay.embedded.instrument import view, watch
from relay.embedded.media import Feed, MediaClock

M = TypeVar("M", bound=llm.RealtimeModel)


class RealtimeObserver:
    """Reports the user's speech in a model's sessions, and nothing of the model's own output."""

    def __init__(self, report: Report, media: MediaClock, guard: ErrorGuard) -> None:
        self._report = report
        self._media = media
        self._guard = guard
        self.follow = guard(self._follow)

    def wrap(self, model: M) -> M:
        """The instrumented model."""
        return view(model, _Model, relay_tap=self)

    def _follow(self, session: llm.RealtimeSession[Any]) -> None:
        tap = _SessionTap(self._report, self._media, self._guard)
        watch(session, _Session, relay_tap=tap)
        for event, handler in tap.handlers.items():
            session.on(event, handler)


class _SessionTap:
    def __init__(self, report: Report, media: MediaClock, guard: ErrorGuard) -> None:
        self._feed = Feed(media)
        self._speech = speech = RealtimeSpeech(report)
        self.pushed = guard(self._pushed)
        self.closed = guard(self._closed)
        self.handlers: dict[Any, Callable[..., None]] = {
            "input_speech_started": guard(self._started),
            "input_speech_stopped": guard(self._stopped),
            "input_audio_transcription_completed": guard(speech.transcribed),
            "session_reconnected": guard(self._reconnected),
            "openai_server_event_received": guard(speech.server_message),
        }

    def _pushed(self, frame: rtc.AudioFrame) -> None:
        first = self._feed.begins is None
        self._feed.take(frame)
        if first:
            self._speech.connected(self._feed.begins_ms)

    def _started(self, _event: llm.InputSpeechStartedEvent) -> None:
        self._speech.started(self._feed.ends_ms)

    def _stopped(self, _event: llm.InputSpeechStoppedEvent) -> None:
        self._speech.stopped(self._feed.ends_ms)

    def _reconnected(self, _event: llm.RealtimeSessionReconnectedEvent) -> None:
        # It reconnected by itself, so the place of its first audio is unknown.
        self._speech.ended("lost")
        self._speech.connected(None)

    def _closed(self) -> None:
        self._speech.ended("closed")


class _Model(llm.RealtimeModel):
    relay_tap: RealtimeObserver

    def session(self, *args: Any, **options: Any) -> llm.RealtimeSession[Any]:
        session = super().session(*args, **options)  # type: ignore[safe-super]  # the plugin's own comes next
        self.relay_tap.follow(session)
        return session


class _Session(llm.RealtimeSession[Any]):
    relay_tap: _SessionTap

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        self.relay_tap.pushed(frame)
        super().push_audio(frame)  # type: ignore[safe-super]  # the plugin's own comes next

    async def aclose(self) -> None:
        try:
            await super().aclose()  # type: ignore[safe-super]  # the plugin's own comes next
        finally:
            self.relay_tap.closed()
