"""Observes the speech recognition of an embedding agent's session."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from livekit import rtc
from livekit.agents import stt

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.stt.transcripts import Transcripts
from relay.embedded.instrument import view, watch
from relay.embedded.media import Feed, MediaClock, shifted
from relay.speech.observations import Observation, SttEnded, SttStarted, SttTranscript

Report = Callable[[Observation], None]
S = TypeVar("S", bound=stt.STT[Any])


class SttObserver:
    """Reports a provider's events: from its streams, or per request where it does not stream."""

    def __init__(self, report: Report, media: MediaClock, guard: ErrorGuard) -> None:
        self._report = report
        self._media = media
        self._guard = guard

    def wrap(self, provider: S) -> S:
        """The instrumented provider."""
        return view(provider, _Stt, relay_tap=_ProviderTap(provider, self._report, self._media, self._guard))


class _ProviderTap:
    def __init__(self, provider: stt.STT[Any], report: Report, media: MediaClock, guard: ErrorGuard) -> None:
        # The times of these restart with each stretch of speech, or with each of several providers.
        self._timed = not isinstance(provider, stt.StreamAdapter | stt.FallbackAdapter)
        self._report = report
        self._media = media
        self._guard = guard
        self._requests = Transcripts(report, timed=False)
        self.follow = guard(self._follow)
        self.recognized = guard(self._recognized)

    def _follow(self, stream: stt.RecognizeStream) -> None:
        tap = _SttStreamTap(stream, self._report, self._media, self._guard, timed=self._timed)
        watch(stream, _SttStream, relay_tap=tap)

    def _recognized(self, event: stt.SpeechEvent) -> None:
        self._requests.heard(event, 0.0, 0.0, math.inf)


class _SttStreamTap:
    def __init__(
        self, stream: stt.RecognizeStream, report: Report, media: MediaClock, guard: ErrorGuard, *, timed: bool
    ) -> None:
        self._stream = stream
        self._report = report
        self._feed = Feed(media)
        self._transcripts = Transcripts(self._transcribed, timed=timed)
        self.pushed = guard(self._pushed)
        self.heard = guard(self._heard)
        self.closed = guard(self._transcripts.end)

    def _pushed(self, frame: rtc.AudioFrame) -> None:
        if self._feed.begins is None:
            # The session sets a stream's audio start, in seconds since the session's own first audio.
            self._transcripts.offset_s = self._stream.start_time_offset
        self._feed.take(frame)

    def _heard(self, event: stt.SpeechEvent) -> None:
        given_s = self._transcripts.offset_s + self._feed.given_s
        self._transcripts.heard(event, self._stream.start_time_offset, self._stream.start_time, given_s)

    def _transcribed(self, observation: SttStarted | SttEnded | SttTranscript) -> None:
        self._report(shifted(observation, self._feed.begins_ms - round(self._transcripts.offset_s * 1000)))


class _Stt(stt.STT[Any]):
    relay_tap: _ProviderTap

    def stream(self, *args: Any, **options: Any) -> stt.RecognizeStream:
        stream = super().stream(*args, **options)
        self.relay_tap.follow(stream)
        return stream

    async def recognize(self, *args: Any, **options: Any) -> stt.SpeechEvent:
        event = await super().recognize(*args, **options)
        self.relay_tap.recognized(event)
        return event


class _SttStream(stt.RecognizeStream):
    relay_tap: _SttStreamTap

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self.relay_tap.pushed(frame)
        super().push_frame(frame)

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self.relay_tap.closed()

    async def __anext__(self) -> stt.SpeechEvent:
        event = await super().__anext__()
        self.relay_tap.heard(event)
        return event
