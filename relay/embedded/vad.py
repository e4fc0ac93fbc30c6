"""Observes the voice activity detection of an embedding agent's session."""

import asyncio
from typing import TypeVar

from livekit import rtc
from livekit.agents import vad

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import Outages, describe
from relay.capture.health.progress import Backpressure
from relay.capture.health.watchdog import INFERENCE_WITHIN_S, Stall
from relay.capture.vad.events import Report, Segments
from relay.embedded.instrument import view, watch
from relay.embedded.media import Feed, MediaClock
from relay.events.stream import SourceFailure
from relay.speech.observations import VadEnded, VadStarted

V = TypeVar("V", bound=vad.VAD)

HELD_UP_S = 1.0
"""No audio for this long means that the process was blocked, or the session takes none now: no answer is due."""


class VadObserver:
    """Reports the events of a detector's streams.

    Several concurrent streams process the same audio (speech recognition that does not stream has its own): the oldest
    open one is reported. One that fails or stops answering is reported as an outage: LiveKit does not restart it.
    """

    def __init__(self, report: Report, media: MediaClock, guard: ErrorGuard, outages: Outages) -> None:
        self._report = report
        self._media = media
        self._guard = guard
        self._outages = outages
        self._open: list[_VadStreamTap] = []
        self.follow = guard(self._follow)

    def wrap(self, detector: V) -> V:
        """The instrumented detector."""
        return view(detector, _Vad, relay_tap=self)

    def _follow(self, stream: vad.VADStream) -> None:
        tap = _VadStreamTap(self._report, self._media, self._guard, self._outages, self._open)
        watch(stream, _VadStream, relay_tap=tap)


class _VadStreamTap:
    def __init__(
        self, report: Report, media: MediaClock, guard: ErrorGuard, outages: Outages, opened: "list[_VadStreamTap]"
    ) -> None:
        self._report = report
        self._outages = outages
        self._open = opened
        self._open.append(self)
        self._started = False
        self._over = False
        self._feed = Feed(media)
        self._segments = Segments(self._edge, Backpressure())
        self._pulse = _Pulse()
        self._loop = asyncio.get_running_loop()
        self.pushed = guard(self._pushed)
        self.happened = guard(self._happened)
        self.flushed = guard(self._flushed)
        self.failed = guard(self._failed)
        self.closed = guard(self._closed)

    def ends(self) -> None:
        """No more audio comes. LiveKit flushes a stream to end it; speech in progress is processed to its end."""
        self._over = True

    def _pushed(self, frame: rtc.AudioFrame) -> None:
        self._feed.take(frame)
        self._segments.pushed(frame)
        if self._pulse.missed(self._loop.time()):
            self._down("stalled", "has stalled")

    def _happened(self, event: vad.VADEvent) -> None:
        if self._first:
            self._outages.up("vad", missed_ms=None)
        if event.type is vad.VADEventType.INFERENCE_DONE:
            self._pulse.felt()
        self._segments.happened(event)

    def _failed(self, error: Exception | None) -> None:
        """The stream was iterated to its end; ``error`` is set where it did not end normally."""
        if not self._over:
            self._down("lost", f"failed: {describe(error)}")

    def _down(self, reason: SourceFailure, what: str) -> None:
        if self._first:
            self._outages.down("vad", reason, f"voice activity detection {what}")

    @property
    def _first(self) -> bool:
        return self._open[:1] == [self]

    def _flushed(self) -> None:
        if not self._over:
            self._segments.flushed()

    def _closed(self) -> None:
        self._segments.closed()
        if self in self._open:
            self._open.remove(self)

    def _edge(self, edge: VadStarted | VadEnded) -> None:
        if isinstance(edge, VadStarted):
            self._started = self._first
        if self._started:
            self._report(edge)


class _Pulse:
    """Checks that a detector that answers audio, thirty times a second, keeps doing so. Times in seconds."""

    def __init__(self) -> None:
        self._stall = Stall(INFERENCE_WITHIN_S)
        self._answers = False
        """Whether this detector answers at all: not every detector does."""
        self._given: float | None = None

    def missed(self, now: float) -> bool:
        """Note that it was given audio. Returns whether an answer is overdue."""
        held_up_s = 0.0 if self._given is None else now - self._given
        self._given = now
        if not self._answers:
            return False
        if held_up_s > HELD_UP_S:
            self._stall.forgive(held_up_s)
        self._stall.due(now)
        return self._stall.overdue_s(now) is not None

    def felt(self) -> None:
        """Note an answer."""
        self._answers = True
        self._stall.came()


class _Vad(vad.VAD):
    relay_tap: VadObserver

    def stream(self) -> vad.VADStream:
        stream = super().stream()  # type: ignore[safe-super]  # the plugin's own comes next
        self.relay_tap.follow(stream)
        return stream


class _VadStream(vad.VADStream):
    relay_tap: _VadStreamTap

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self.relay_tap.pushed(frame)
        super().push_frame(frame)

    def flush(self) -> None:
        self.relay_tap.flushed()
        super().flush()

    def end_input(self) -> None:
        self.relay_tap.ends()
        super().end_input()

    async def aclose(self) -> None:
        self.relay_tap.ends()
        try:
            await super().aclose()
        finally:
            self.relay_tap.closed()

    async def __anext__(self) -> vad.VADEvent:
        try:
            event = await super().__anext__()
        except StopAsyncIteration:
            self.relay_tap.failed(None)
            raise
        except Exception as error:
            self.relay_tap.failed(error)
            raise
        self.relay_tap.happened(event)
        return event
