"""Raw speech recognition: every event of the provider, and a provider that is started again when it gives up."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from livekit import rtc
from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError, NotGivenOr, stt, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN

from relay.capture.faults import OnFault, describe
from relay.capture.guard import Guard
from relay.capture.lead import Lead
from relay.capture.position import position
from relay.capture.source import SAMPLE_RATE
from relay.capture.taps.transcripts import Transcripts
from relay.speech.observations import SttEnded, SttStarted, SttTranscript

log = logging.getLogger(__name__)

Report = Callable[[SttStarted | SttEnded | SttTranscript], None]

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0


class DeclaredStt(stt.STT[Any]):
    """Tells the session what the provider is, without handing it over: the session would count the provider's errors
    until it closes itself, and keep each of its metrics for as long as it lives. :class:`SttTap` does the listening.
    """

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


class SttTap:
    """Runs the provider over a session's audio.

    The provider's stream is opened with the first frame, and told that frame's place in the LiveKit stream as its
    ``start_time_offset``, so that the times it gives are media times. The library itself reconnects after passing
    errors; then it moves that offset by wall time, which is wrong by as much audio as was buffered meanwhile, so all
    times after it are reported as not reliable. A provider that fails for good, or ends its stream (some do so
    without an error), is started again after a wait that doubles up to 30 s; audio in between is lost to it.
    """

    def __init__(
        self, provider: stt.STT[Any], name: str, *, report: Report, lead: Lead, guard: Guard, on_fault: OnFault
    ) -> None:
        self.declared = DeclaredStt(provider)
        self._provider = provider
        self._name = name
        self._guard = guard
        self._lead = lead
        self._on_fault = on_fault
        self._transcripts = Transcripts(report, timed=not isinstance(provider, stt.StreamAdapter))
        self._stream: stt.RecognizeStream | None = None
        self._opened = asyncio.Event()
        self._audio_over = False
        self._base = 0
        self._used_s = 0.0
        self._failures = 0
        self._refusal: Exception | None = None
        self._wait_until = 0.0
        provider.on("error", guard(self._noted))

    async def events(self, audio: AsyncIterable[rtc.AudioFrame]) -> AsyncIterator[stt.SpeechEvent]:
        """The provider's events, until the audio ends."""
        reader = asyncio.create_task(self._read(audio), name="stt_tap")
        try:
            while (stream := await self._next_stream()) is not None:
                try:
                    async with stream:
                        async for event in stream:
                            self._heard(event, stream)
                            yield event
                    if self._audio_over:
                        return
                    self._failed(APIConnectionError("the provider ended its stream"))
                except Exception as error:
                    # Raised on, LiveKit would leave this participant deaf for good, or try again twice a second.
                    self._failed(error)
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            self._guard(self._transcripts.end)()

    async def aclose(self) -> None:
        """Free the provider."""
        await self._provider.aclose()

    async def _next_stream(self) -> stt.RecognizeStream | None:
        while self._stream is None and not self._audio_over:
            self._opened.clear()
            await self._opened.wait()
        return self._stream

    # One task for as long as the node lives: to cancel a read of LiveKit's generator would end it.
    async def _read(self, audio: AsyncIterable[rtc.AudioFrame]) -> None:
        async for frame in audio:
            if self._stream is None and asyncio.get_running_loop().time() >= self._wait_until:
                try:
                    self._stream = self._open(frame)
                except Exception as error:
                    self._failed(error)
            if self._stream is not None:
                # A stream that has just ended takes no more, which events() is about to find out.
                with contextlib.suppress(RuntimeError):
                    self._stream.push_frame(frame)
        self._audio_over = True
        self._opened.set()
        if self._stream is not None:
            self._stream.end_input()

    def _open(self, first: rtc.AudioFrame) -> stt.RecognizeStream:
        stream = self._provider.stream(conn_options=DEFAULT_API_CONNECT_OPTIONS)
        self._base = position(first) or 0
        self._used_s = 0.0
        self._transcripts.offset_s = stream.start_time_offset = self._base / SAMPLE_RATE
        self._opened.set()
        return stream

    def _heard(self, event: stt.SpeechEvent, stream: stt.RecognizeStream) -> None:
        if event.type is not stt.SpeechEventType.RECOGNITION_USAGE:
            self._refusal = None
            if self._failures:
                self._failures = 0
                log.info("speech recognition by %s is back", self._name)
        self._guard(self._transcripts.heard)(event, stream.start_time_offset, stream.start_time)
        if event.recognition_usage is not None:
            self._used_s += event.recognition_usage.audio_duration
            self._lead.heard("stt", self._base + round(self._used_s * SAMPLE_RATE))

    def _noted(self, event: stt.STTError) -> None:
        # What the provider answered to one of several attempts: the error that the stream ends with no longer says.
        if isinstance(event.error, APIStatusError):
            self._refusal = event.error

    def _failed(self, error: Exception) -> None:
        self._stream = None
        self._lead.lost("stt")
        wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._failures, 8))
        self._wait_until = asyncio.get_running_loop().time() + wait
        self._failures += 1
        self._guard(self._transcripts.end)()
        if self._failures == 1:
            what = describe(self._refusal or error)
            self._on_fault(f"speech recognition by {self._name} failed: {what}; it is tried again until it answers")
        self._refusal = None
