"""Wraps a detector to report raw voice activity; LiveKit sessions have no public event for it."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

from livekit import rtc
from livekit.agents import vad

from relay.capture.audio.frames import position, to_ms
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import RESTART_S, Backoff, Outages, describe
from relay.capture.health.progress import Backpressure
from relay.capture.health.watchdog import Watchdog
from relay.capture.vad.events import Report, Segments
from relay.events.stream import SourceFailure

BEHIND_S = 30.0
"""Audio that may wait for the detector; with more it falls further and further behind."""

_GOOD_AFTER = 300
"""Inferences, some ten seconds of them, after which a restarted detector counts as good."""


class TappedVad(vad.VAD):
    """Wraps the detector ``inner``, and reports every start and end of speech.

    Its metrics are not passed on: a session keeps every one of them for as long as it lives, 10 MB an hour. Nor are its
    inferences, thirty a second: they tell a session when to interrupt its own speech, and this one never speaks. A
    detector that fails is restarted; the session gets an end of speech, if there was speech. ``on_closed`` is called
    when the session closes its stream, which for LiveKit is also the reaction to an error of its own.
    """

    def __init__(
        self,
        inner: vad.VAD,
        *,
        report: Report,
        on_closed: Callable[[], None],
        lead: Backpressure,
        guard: ErrorGuard,
        outages: Outages,
        watchdog: Watchdog,
    ) -> None:
        super().__init__(capabilities=inner.capabilities)
        self._inner = inner
        self._report = report
        self._on_closed = guard(on_closed)
        self._lead = lead
        self._guard = guard
        self._outages = outages
        self._watchdog = watchdog
        self._stream: _TappedStream | None = None

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    def stream(self) -> vad.VADStream:
        self._stream = _TappedStream(
            self._inner.stream,
            lambda: Segments(self._report, self._lead),
            on_closed=self._on_closed,
            lead=self._lead,
            guard=self._guard,
            outages=self._outages,
            watchdog=self._watchdog,
        )
        # VADStream's constructor starts its own tasks, so the wrapper has its methods without being one.
        return cast("vad.VADStream", self._stream)

    def restart(self, *, stalled: bool) -> None:
        """Restart the detector: it has stalled, or its audio did, so the speech in progress is of no use."""
        if self._stream is not None:
            self._stream.restart(stalled=stalled)


class _TappedStream:
    def __init__(
        self,
        new_inner: Callable[[], vad.VADStream],
        new_segments: Callable[[], Segments],
        *,
        on_closed: Callable[[], None],
        lead: Backpressure,
        guard: ErrorGuard,
        outages: Outages,
        watchdog: Watchdog,
    ) -> None:
        self._new_inner = new_inner
        self._new_segments = new_segments
        self._on_closed = on_closed
        self._lead = lead
        self._guard = guard
        self._outages = outages
        self._watchdog = watchdog
        self._inner: vad.VADStream | None
        self._begins: int | None
        """Where this detector's audio begins, in samples."""
        self._inferences: int
        self._start(new_inner())
        self._ends = 0
        """Where the newest audio ends."""
        self._heard_to: int | None = None
        """The progress of the previous detector, if it failed."""
        self._backoff = Backoff(RESTART_S)
        self._owes_end = False
        """The session has an open speech from a detector that is gone."""
        self._over = False
        self._closings: set[asyncio.Task[None]] = set()

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        at = position(frame)
        at = self._ends if at is None else at
        self._ends = at + frame.samples_per_channel
        if self._inner is None:
            return
        self._begins = at if self._begins is None else self._begins
        self._pushed(frame)
        self._watchdog.voice_fed(asyncio.get_running_loop().time())
        # If this were raised, LiveKit would never give it audio again. A detector that has ended is about to be
        # replaced.
        with contextlib.suppress(RuntimeError):
            self._inner.push_frame(frame)
        heard_to = self._segments.heard_to
        if heard_to is not None and self._ends - heard_to > BEHIND_S * SAMPLE_RATE:
            self._lost("overloaded", f"is {BEHIND_S:g} s behind, for this machine is too busy")

    def flush(self) -> None:
        self._flushed()
        if self._inner is not None:
            with contextlib.suppress(RuntimeError):
                self._inner.flush()

    def end_input(self) -> None:
        self._over = True
        if self._inner is not None:
            self._inner.end_input()

    async def aclose(self) -> None:
        self._over = True
        if self._inner is not None:
            await self._inner.aclose()
        self._closed()
        self._lead.lost("vad")
        self._on_closed()

    def restart(self, *, stalled: bool) -> None:
        if self._inner is None:
            return
        if stalled:
            self._lost("stalled", "stalled")
        else:
            self._leave(self._inner)
            self._start(self._new_inner())

    def __aiter__(self) -> "_TappedStream":
        return self

    async def __anext__(self) -> vad.VADEvent:
        while True:
            if self._owes_end:
                self._owes_end = False
                return vad.VADEvent(vad.VADEventType.END_OF_SPEECH, 0, 0.0, 0.0, 0.0)
            inner = self._inner or await self._renewed()
            try:
                event = await anext(inner)
            except Exception as error:  # its end too
                if self._over:
                    raise
                if inner is self._inner:
                    self._lost("lost", f"failed: {describe(_cause(error))}")
                continue
            if inner is not self._inner:
                continue
            inferred = event.type is vad.VADEventType.INFERENCE_DONE
            if inferred:
                self._inferred()
            self._happened(event)
            if not inferred:
                return event

    def _inferred(self) -> None:
        self._watchdog.voice_inferred()
        self._inferences += 1
        if self._inferences == 1 and self._heard_to is not None:
            self._outages.up("vad", to_ms(max(0, (self._begins or 0) - self._heard_to)))
        if self._inferences == _GOOD_AFTER:
            self._backoff.reset()

    def _lost(self, reason: SourceFailure, what: str) -> None:
        """The detector ended. The next one is created after a delay."""
        if self._inner is not None:
            self._leave(self._inner)
        self._outages.down("vad", reason, f"voice activity detection {what}; it is started again")

    def _leave(self, inner: vad.VADStream) -> None:
        """End the detector's open speech, and release it."""
        self._owes_end = self._owes_end or self._segments.speaking
        self._heard_to = self._segments.heard_to or self._heard_to or 0
        self._closed()
        self._inner = None
        self._watchdog.voice_inferred()
        # The feed does not wait for answers to audio already given.
        self._lead.heard("vad", self._ends)
        closing = asyncio.create_task(_closed(inner), name="vad_close")
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    async def _renewed(self) -> vad.VADStream:
        while True:
            await asyncio.sleep(self._backoff.wait_s())
            try:
                inner = self._new_inner()
            except Exception as error:
                self._outages.down("vad", "lost", f"voice activity detection cannot be started: {describe(error)}")
            else:
                self._start(inner)
                return inner

    def _start(self, inner: vad.VADStream) -> None:
        self._inner, self._begins, self._inferences = inner, None, 0
        self._segments = segments = self._new_segments()
        self._pushed = self._guard(segments.pushed)
        self._happened = self._guard(segments.happened)
        self._flushed = self._guard(segments.flushed)
        self._closed = self._guard(segments.closed)


async def _closed(inner: vad.VADStream) -> None:
    with contextlib.suppress(Exception):
        await inner.aclose()


def _cause(error: Exception) -> Exception | None:
    return None if isinstance(error, StopAsyncIteration) else error
