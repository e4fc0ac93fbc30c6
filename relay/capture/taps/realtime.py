"""A realtime model that listens and has no mouth."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from livekit import rtc
from livekit.agents import llm

from relay.capture.guard import Guard
from relay.capture.outages import Outages
from relay.capture.position import to_ms
from relay.capture.source import SAMPLE_RATE
from relay.capture.taps.kept_audio import KeptAudio
from relay.capture.taps.realtime_faults import describe_answer, describe_failure, kind_of_failure
from relay.capture.taps.realtime_speech import RealtimeSpeech, Report
from relay.capture.taps.silent_session import SilentSession
from relay.events.realtime import RealtimeEnd

_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Before a session is opened again, after the first failure in a row, the second, …; the last one repeats."""

_LEAD_IN = SAMPLE_RATE
"""Samples before the newest frame that a new connection gets in silence: a model is sure of speech some time after it
began."""

_MOST_KEPT = 30 * SAMPLE_RATE
"""Samples kept while somebody speaks or nobody answers: 1 MB. What is older is not said again to a new connection."""

_RESUME_WITHIN_S = 5.0
"""How long a new connection may take to hear the speech that the old one was in the middle of."""

_RENEW_AFTER_S = 20 * 60
"""Age at which a session is replaced in a quiet moment: it carries all that was ever said in it, and OpenAI ends it
after an hour."""

_QUIET_S = 10.0
"""A moment is quiet when nothing came for so long: no speech, and no text that is still due."""

_STEADY_S = 2.0
"""A connection that was greeted and did not fail for so long is a good one."""

_CLOSE_WITHIN_S = 2.0


class ListeningModel(llm.RealtimeModel):
    """What an agent session runs in place of ``inner``: everything that is heard passes through it, nothing that would
    be said does. The session is told of speech and of text; it is not told of errors, upon which it would close
    itself, nor of metrics, of which it would keep every one.
    """

    def __init__(self, inner: llm.RealtimeModel, name: str, *, report: Report, guard: Guard, outages: Outages) -> None:
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

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    def session(self, *, turn_detection_disabled: bool = False) -> "ListeningSession":
        return ListeningSession(
            self, self._inner, self._name, report=self._report, guard=self._guard, outages=self._outages
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class ListeningSession(SilentSession):
    """Runs sessions of the real model, one after the other.

    One that fails is replaced after a wait. The next one is first given what was said meanwhile, and from where the
    speech began if that was in mid-speech, 30 s at most: so its text comes whole, and its times are right, since they
    count from audio whose place is known. A failure that passes with the first new attempt is not told as an outage,
    unless the model refused.
    """

    def __init__(
        self,
        model: ListeningModel,
        inner: llm.RealtimeModel,
        name: str,
        *,
        report: Report,
        guard: Guard,
        outages: Outages,
    ) -> None:
        super().__init__(model)
        self._inner = inner
        self._name = name
        self._outages = outages
        self._speech = RealtimeSpeech(report)
        self._kept = KeptAudio()
        self._base = 0
        self._session: llm.RealtimeSession[Any] | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._opened_at = 0.0
        self._news_at = 0.0
        self._greeted_at: float | None = None
        self._heard_since_opened = False
        self._wait_until = 0.0
        self._failures = 0
        self._failed_at = 0.0
        self._heard_to = 0
        self._missed = 0
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
            "openai_server_event_received": guard(self._told),
        }

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        self._push(frame)

    async def aclose(self) -> None:
        self._closed = True
        self._drop()
        self._end("closed")
        if self._closings:
            await asyncio.wait(self._closings, timeout=_CLOSE_WITHIN_S)
        for closing in self._closings:
            closing.cancel()

    def _take(self, frame: rtc.AudioFrame) -> None:
        now = asyncio.get_running_loop().time()
        waiting = self._speech.speaking or self._greeted_at is None
        self._kept.add(frame, _MOST_KEPT if waiting else _LEAD_IN)
        if self._session is not None and self._renewable(now):
            self._drop()
            self._open(now)
        elif self._session is not None:
            self._session.push_audio(frame)
        elif now >= self._wait_until and not self._closed:
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
        self._base = self._kept.begins
        self._speech.connected(to_ms(self._base))
        for event, handler in self._handlers.items():
            session.on(event, handler)
        for frame in self._kept:
            session.push_audio(frame)

    def _check(self, now: float) -> None:
        """What only time can tell: a good connection, speech that the new connection does not know of."""
        greeted = self._greeted_at
        if greeted is not None and now - greeted >= _STEADY_S:
            self._good()
        if self._speech.speaking and not self._heard_since_opened:
            deaf = greeted is not None and now - greeted >= _RESUME_WITHIN_S
            if deaf or self._kept.ends - self._kept.begins >= _MOST_KEPT:
                self._end("lost")

    def _renewable(self, now: float) -> bool:
        old = now - self._opened_at >= _RENEW_AFTER_S
        return old and not self._speech.speaking and now - self._news_at >= _QUIET_S

    def _told(self, message: object) -> None:
        if isinstance(message, dict) and self._greeted_at is None and message.get("type") == "session.updated":
            self._greeted()
        if (trouble := describe_answer(message)) is not None:
            self._complain(f"could not put speech into words ({trouble})")
        self._speech.told(message)

    def _started(self, event: llm.InputSpeechStartedEvent) -> None:
        self._news()
        self._heard_since_opened = True
        if self._speech.started():
            self.emit("input_speech_started", event)

    def _stopped(self, event: llm.InputSpeechStoppedEvent) -> None:
        self._news()
        was_speaking = self._speech.speaking
        end_ms = self._speech.stopped()
        self._kept.forget(self._kept.ends if end_ms is None else end_ms * SAMPLE_RATE // 1000)
        if was_speaking:
            self.emit("input_speech_stopped", replace(event, user_transcription_enabled=False))

    def _transcribed(self, said: llm.InputTranscriptionCompleted) -> None:
        self._news()
        self._complained = self._complained and not said.is_final
        self._speech.transcribed(said)
        if said.transcript:
            # Where there is no confidence the session would put 1.0 in its place.
            self.emit("input_audio_transcription_completed", replace(said, confidence=said.confidence or 0.0))

    def _reconnected(self, event: llm.RealtimeSessionReconnectedEvent) -> None:
        # By itself, so nobody knows which audio came first.
        self._end("lost")
        self._speech.connected(None)

    def _answers(self, event: llm.GenerationCreatedEvent) -> None:
        if self._session is not None:
            self._session.interrupt()
        self._complain("answers, though nobody asked it to; each answer is cut off")

    def _error(self, event: llm.RealtimeModelError) -> None:
        if event.recoverable:
            self._complain(f"reports a passing error: {describe_failure(event.error)}")
        else:
            self._failed(event.error)

    def _failed(self, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if self._greeted_at is not None:
            self._heard_to = self._kept.ends
        self._drop()
        self._greeted_at, self._heard_since_opened = None, False
        self._failed_at = self._failed_at if self._failures else now
        self._wait_until = now + _WAITS_S[min(self._failures, len(_WAITS_S) - 1)]
        self._failures += 1
        self._speech.unanswered()
        reason = kind_of_failure(error)
        if self._failures > 1 or reason == "refused":
            what = f"the realtime model {self._name} failed: {describe_failure(error)}"
            since_ms = round((now - self._failed_at) * 1000)
            self._outages.down("realtime", reason, f"{what}; it is tried again until it answers", since_ms=since_ms)

    def _greeted(self) -> None:
        self._greeted_at = asyncio.get_running_loop().time()
        self._missed += max(0, self._base - self._heard_to)

    def _news(self) -> None:
        self._news_at = asyncio.get_running_loop().time()
        if self._greeted_at is None:
            self._greeted()
        self._good()

    def _good(self) -> None:
        if self._failures:
            self._failures = 0
            self._outages.up("realtime", to_ms(self._missed))
            self._missed = 0

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
        closing = asyncio.create_task(_close(session), name="realtime_session_close")
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)


async def _close(session: llm.RealtimeSession[Any]) -> None:
    # One that failed says so once more.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await session.aclose()
