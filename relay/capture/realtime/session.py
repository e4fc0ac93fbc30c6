"""A realtime model that only listens, and its session, which is renewed when it fails."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from livekit import rtc
from livekit.agents import llm

from relay.capture.audio.frames import KeptAudio, to_ms
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import (
    Outages,
    describe_failed_transcription,
    describe_model_failure,
    kind_of_model_failure,
)
from relay.capture.realtime.health import ANSWER_WITHIN_S, RealtimeAttempts, RealtimeWatch
from relay.capture.realtime.silent_session import SilentSession
from relay.capture.realtime.speech import RealtimeSpeech, Report
from relay.events.detectors import RealtimeEnd
from relay.events.stream import SourceFailure

_LEAD_IN = SAMPLE_RATE
"""Samples before the newest frame that a new connection gets in silence: a model reports speech some time after its
onset."""

_MOST_KEPT = 30 * SAMPLE_RATE
"""Samples buffered where it is unknown whether the model processed them: 1 MB. Older audio is not replayed to a new
connection."""

_RESUME_WITHIN_S = 5.0
"""How long a new connection may take to report the speech that was in progress on the old one."""

_RENEW_AFTER_S = 20 * 60
"""The age at which a session is replaced in a quiet moment: it carries its whole history, and OpenAI ends it after an
hour."""

_QUIET_S = 10.0
"""A moment is quiet after this long without events: no speech, and no text that is still due."""

_STEADY_S = 2.0
"""A connection that was greeted and did not fail for this long is good."""

_CLOSE_WITHIN_S = 2.0


class ListeningRealtimeSession(SilentSession):
    """Runs sessions of the real model, one after the other.

    A failed session is replaced after a delay. The next one first gets the audio of the gap, and from the onset if that
    was in mid-speech, 30 s at most: so its text is complete, and its times are right, since they count from audio whose
    place is known. A silent session is probed: without an answer it has failed. A session that answers and misses
    likely speech is replaced at once.
    """

    def __init__(
        self,
        model: llm.RealtimeModel,
        inner: llm.RealtimeModel,
        name: str,
        *,
        report: Report,
        guard: ErrorGuard,
        outages: Outages,
    ) -> None:
        super().__init__(model)
        self._inner = inner
        self._name = name
        self._outages = outages
        self._attempts = RealtimeAttempts(name, outages)
        self._speech = RealtimeSpeech(report)
        self._watch = RealtimeWatch()
        self._kept = KeptAudio()
        self._base = 0
        self._session: llm.RealtimeSession[Any] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened_at = 0.0
        self._news_at = 0.0
        self._greeted_at: float | None = None
        self._heard_since_opened = False
        self._heard_to = 0
        """The position up to which the model is known to have processed the audio."""
        self._complained = False
        self._closed = False
        self._push = guard(self._take)
        self._handlers: dict[Any, Callable[..., None]] = {
            "input_speech_started": guard(self._started),
            "input_speech_stopped": guard(self._stopped),
            "input_audio_transcription_completed": guard(self._transcribed),
            "session_reconnected": guard(self._reconnected),
            "generation_created": guard(self._answers),
            "error": guard(self._error),
            "openai_client_event_queued": guard(self._sent),
            "openai_server_event_received": guard(self._server_message),
        }

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        self._push(frame)

    def cut_off(self) -> None:
        """The audio has stopped: the speech in progress is lost, and the next audio starts over."""
        if self._speech.speaking:
            self._drop()
            self._end("lost")
            self._speech.unanswered()
            self._heard_to = self._kept.ends
            self._kept.forget(self._heard_to)

    async def aclose(self) -> None:
        self._closed = True
        self._drop()
        self._end("closed")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_WITHIN_S)
        for task in self._tasks:
            task.cancel()

    def _take(self, frame: rtc.AudioFrame) -> None:
        now = asyncio.get_running_loop().time()
        waiting = self._speech.speaking or self._greeted_at is None
        unheard = max(0, self._kept.ends - self._heard_to) + _LEAD_IN
        self._kept.add(frame, _MOST_KEPT if waiting else min(_MOST_KEPT, unheard))
        if self._session is not None and self._renewable(now):
            self._drop()
            self._open(now)
        elif self._session is not None:
            self._watch.heard(frame, speaking=self._speech.speaking)
            self._session.push_audio(frame)
        elif now >= self._attempts.wait_until and not self._closed:
            self._open(now)
        self._check(now)

    def _open(self, now: float) -> None:
        try:
            self._session = session = self._inner.session()
        except Exception as error:
            self._failed(error)
            return
        self._opened_at = self._news_at = now
        self._greeted_at, self._heard_since_opened = None, False
        self._watch.opened(now)
        self._base = self._kept.begins
        self._speech.connected(to_ms(self._base))
        for event, handler in self._handlers.items():
            session.on(event, handler)
        for frame in self._kept:
            session.push_audio(frame)

    def _check(self, now: float) -> None:
        """Run the time-based checks: a good connection, a silent one, speech that the new one does not report."""
        if self._session is not None:
            self._suspect(self._session, now)
        greeted = self._greeted_at
        if greeted is not None and now - greeted >= _STEADY_S:
            self._attempts.steady()
        if self._speech.speaking and not self._heard_since_opened:
            deaf = greeted is not None and now - greeted >= _RESUME_WITHIN_S
            if deaf or self._kept.ends - self._kept.begins >= _MOST_KEPT:
                self._end("lost")

    def _suspect(self, session: llm.RealtimeSession[Any], now: float) -> None:
        match self._watch.suspects(now):
            case "ask":
                self._watch.asked(now)
                # An empty change is the one request that any model accepts, and every server answers it.
                self._in_background(session.update_instructions(""), name="realtime_session_ask")
            case "hung":
                self._over("stalled", "does not answer any more", since_s=ANSWER_WITHIN_S)
            case "deaf":
                self._attempts.deaf(now)
                self._speech.unanswered()
                self._drop()
                self._open(now)
            case None:
                pass

    def _renewable(self, now: float) -> bool:
        old = now - self._opened_at >= _RENEW_AFTER_S
        return old and not self._speech.speaking and now - self._news_at >= _QUIET_S

    def _sent(self, message: object) -> None:
        if isinstance(message, dict) and message.get("type") == "session.update":
            self._watch.asked(asyncio.get_running_loop().time())

    def _server_message(self, message: object) -> None:
        self._alive()
        if isinstance(message, dict) and message.get("type") == "session.updated":
            self._watch.answered()
            if self._greeted_at is None:
                self._greeted()
        if (trouble := describe_failed_transcription(message)) is not None:
            self._complain(f"could not put speech into words ({trouble})")
        self._speech.server_message(message)

    def _started(self, event: llm.InputSpeechStartedEvent) -> None:
        self._news()
        self._heard_since_opened = True
        if self._speech.started(to_ms(self._kept.ends)):
            self.emit("input_speech_started", event)

    def _stopped(self, event: llm.InputSpeechStoppedEvent) -> None:
        self._news()
        was_speaking = self._speech.speaking
        end_ms = self._speech.stopped(to_ms(self._kept.ends))
        self._kept.forget(self._kept.ends if end_ms is None else end_ms * SAMPLE_RATE // 1000)
        if was_speaking:
            self.emit("input_speech_stopped", replace(event, user_transcription_enabled=False))

    def _transcribed(self, said: llm.InputTranscriptionCompleted) -> None:
        self._news()
        self._complained = self._complained and not said.is_final
        if self._speech.transcribed(said) and said.transcript:
            # Where there is no confidence the session would use 1.0.
            self.emit("input_audio_transcription_completed", replace(said, confidence=said.confidence or 0.0))

    def _reconnected(self, event: llm.RealtimeSessionReconnectedEvent) -> None:
        # It reconnected by itself, so the place of its first audio is unknown.
        self._end("lost")
        self._speech.connected(None)

    def _answers(self, event: llm.GenerationCreatedEvent) -> None:
        if self._session is not None:
            self._session.interrupt()
        self._complain("answers without a request; each answer is cut off")

    def _error(self, event: llm.RealtimeModelError) -> None:
        if event.recoverable:
            self._watch.refused()
            self._complain(f"reports a passing error: {describe_model_failure(event.error)}")
        else:
            self._failed(event.error)

    def _failed(self, error: Exception) -> None:
        if self._greeted_at is not None:
            self._heard_to = self._kept.ends
        self._over(kind_of_model_failure(error), f"failed: {describe_model_failure(error)}")

    def _over(self, reason: SourceFailure, what: str, *, since_s: float = 0.0) -> None:
        self._drop()
        self._greeted_at, self._heard_since_opened = None, False
        self._speech.unanswered()
        self._attempts.ended(asyncio.get_running_loop().time(), reason, what, since_s=since_s)

    def _greeted(self) -> None:
        self._greeted_at = asyncio.get_running_loop().time()
        self._attempts.missed(max(0, self._base - self._heard_to))
        self._heard_to = max(self._heard_to, self._base)

    def _alive(self) -> None:
        self._watch.sign_of_life(asyncio.get_running_loop().time())
        if self._greeted_at is not None and not self._watch.doubts:
            self._heard_to = self._kept.ends

    def _news(self) -> None:
        self._news_at = asyncio.get_running_loop().time()
        self._watch.said(self._news_at)
        if self._greeted_at is None:
            self._greeted()
        self._alive()
        self._attempts.hears()

    def _complain(self, trouble: str) -> None:
        if not self._complained:
            self._complained = True
            self._outages.complain(f"the realtime model {self._name} {trouble}")

    def _end(self, reason: RealtimeEnd) -> None:
        if self._speech.speaking:
            self._speech.ended(reason)
            self.emit("input_speech_stopped", llm.InputSpeechStoppedEvent(user_transcription_enabled=False))

    def _drop(self) -> None:
        if self._session is None:
            return
        session, self._session = self._session, None
        for event, handler in self._handlers.items():
            session.off(event, handler)
        self._in_background(session.aclose(), name="realtime_session_close")

    def _in_background(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.create_task(_tried(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _tried(work: Coroutine[Any, Any, None]) -> None:
    # A session that failed reports it once more.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await work


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
