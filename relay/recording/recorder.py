"""Records tracks: one log stream each, whose events the tracker makes from observations."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from relay.capture.health.error_guard import place_of
from relay.clock import Clock
from relay.config.models import Speech
from relay.errors import OutboxError, RelayError, StreamTaken
from relay.events.envelope import StreamEvent
from relay.ids import new_id
from relay.outbox.records import NewStream
from relay.recording.metrics import CaptureMetrics
from relay.speech.context import StreamContext, TrackerSettings
from relay.speech.observations import Observation, SttTranscript, Transcribed
from relay.speech.tracker import Tracker

logger = logging.getLogger(__name__)

MAX_WAITING = 256
"""Above this number of uncommitted events, interims are dropped: they have the lowest value."""


EventListener = Callable[[StreamEvent], None]
"""Sees a stream's events in order, whether or not the log accepts them. Must neither block nor raise."""


class EventLog(Protocol):
    """The log of one stream. The result completes at the commit, or raises ``OutboxError``."""

    def append(self, events: Sequence[StreamEvent]) -> Awaitable[None]: ...


class StreamOpener(Protocol):
    """Opens streams. Raises ``StreamTaken`` when another process already listens to the track."""

    async def open_stream(self, stream: NewStream) -> EventLog: ...

    async def give_up(self, stream_id: str) -> None:
        """Leave a stream that can no longer be written to the orphan cleanup."""
        ...


def tracker_settings(speech: Speech) -> TrackerSettings:
    """The utterance settings of config.yaml."""
    return TrackerSettings(
        merge_gap_ms=round(speech.merge_gap.total_seconds() * 1000),
        transcript_timeout_ms=round(speech.transcript_timeout.total_seconds() * 1000),
    )


class StreamRecorder:
    """Feeds one stream's observations to its tracker and appends the resulting events, in order.

    Lives on one event loop; ``observe`` never blocks and never raises because of the log. ``lost`` is set when the log
    permanently refuses an append: from then on nothing of this stream is recorded.
    """

    def __init__(
        self,
        tracker: Tracker,
        log: EventLog,
        clock: Clock,
        event_listeners: Sequence[EventListener] = (),
        metrics: CaptureMetrics | None = None,
    ) -> None:
        self._tracker = tracker
        self._log = log
        self._clock = clock
        self._event_listeners = tuple(event_listeners)
        self._metrics = metrics or CaptureMetrics()
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        self._events_waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self.lost = asyncio.Event()

    def observe(self, observation: Observation) -> None:
        self._metrics.observed(observation)
        if self._events_waiting > MAX_WAITING and _is_interim(observation):
            self._metrics.dropped.inc()
            return
        now = self._clock.now_ms()
        self._append(self._tracker.observe(observation, now, self._clock.steady_ms()), now)

    async def flush(self) -> None:
        """Wait until everything observed so far is committed, or known to be lost."""
        while self._waiting:
            await asyncio.wait(self._waiting)

    def close(self) -> None:
        """Stop the tracker's clock. Pending appends still commit."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = self._clock.now_ms()
        self._append(self._tracker.tick(now, self._clock.steady_ms()), now)

    def _append(self, events: Sequence[StreamEvent], now: int) -> None:
        if events and not self.lost.is_set():
            self._submit(events)
        for event in events:
            self._metrics.made(event)
        for event_listener in self._event_listeners:
            for event in events:
                event_listener(event)
        self.close()
        if (deadline := self._tracker.deadline) is not None:
            self._timer = self._loop.call_later(max(deadline - now, 0) / 1000, self._tick)

    def _submit(self, events: Sequence[StreamEvent]) -> None:
        try:
            appended = asyncio.ensure_future(self._log.append(events))
        except Exception as error:
            # A bug, or no memory. The log takes nothing after the gap, so another stream has to follow.
            self._lose(error)
            return
        self._waiting.add(appended)
        self._events_waiting += len(events)
        appended.add_done_callback(lambda done: self._appended(done, len(events)))

    def _appended(self, done: asyncio.Future[None], events: int) -> None:
        self._waiting.discard(done)
        self._events_waiting -= events
        if not done.cancelled() and (error := done.exception()) is not None and not self.lost.is_set():
            self._lose(error)

    def _lose(self, error: BaseException) -> None:
        self.lost.set()
        if isinstance(error, RelayError):
            logger.error("a stream can no longer be recorded: %s", error)
        else:
            logger.error("a stream can no longer be recorded: %s", place_of(error))


class Records:
    """Opens the log streams of tracks. One instance per process."""

    def __init__(
        self,
        outbox: StreamOpener,
        clock: Clock,
        settings: TrackerSettings,
        event_listeners: Sequence[EventListener] = (),
        metrics: CaptureMetrics | None = None,
    ) -> None:
        self._outbox = outbox
        self._metrics = metrics or CaptureMetrics()
        self._clock = clock
        self._settings = settings
        self._event_listeners = event_listeners
        self._left_open: dict[str, str] = {}
        """Streams that could not be written to their end, by track. They still block a new one."""

    async def open(self, context: StreamContext) -> "StreamRecord | None":
        """Open the stream that ``context`` describes. None: another process records the track.

        Raises ``OutboxError`` where the log fails.
        """
        if (left_open := self._left_open.get(context.track_sid)) is not None:
            await self._outbox.give_up(left_open)
            del self._left_open[context.track_sid]
        new = NewStream(
            id=context.stream_id,
            room_sid=context.room.sid,
            room=context.room.name,
            track_sid=context.track_sid,
            participant=context.participant.identity,
        )
        tracker = Tracker(context, self._settings, partial(new_id, "utt"))
        try:
            log = await self._outbox.open_stream(new)
        except StreamTaken:
            return None
        recorder = StreamRecorder(tracker, log, self._clock, self._event_listeners, self._metrics)
        return StreamRecord(context, recorder, self._give_up)

    async def _give_up(self, context: StreamContext) -> None:
        self._left_open[context.track_sid] = context.stream_id
        with suppress(OutboxError):  # at the next open, or by the orphan cleanup when this process is gone
            await self._outbox.give_up(context.stream_id)
            del self._left_open[context.track_sid]


class StreamRecord:
    """The open log stream of one track."""

    def __init__(
        self, context: StreamContext, recorder: StreamRecorder, give_up: Callable[[StreamContext], Awaitable[None]]
    ) -> None:
        self.stream_id = context.stream_id
        self.observe = recorder.observe
        self._context = context
        self._recorder = recorder
        self._give_up = give_up

    async def lost(self) -> None:
        """Wait, without limit, until the stream can no longer be written."""
        await self._recorder.lost.wait()

    async def close(self, *, complete: bool = True) -> None:
        """Returns when the last event is committed, or the stream is left to the orphan cleanup.

        ``complete``: its end was observed, and everything before it.
        """
        try:
            await self._recorder.flush()
        finally:
            self._recorder.close()
        if self._recorder.lost.is_set() or not complete:
            await self._give_up(self._context)

    def stop(self) -> None:
        """Stop the tracker's clock without an end."""
        self._recorder.close()


def _is_interim(observation: Observation) -> bool:
    return isinstance(observation, Transcribed | SttTranscript) and not observation.final
