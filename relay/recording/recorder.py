"""Records one stream: feeds observations to the tracker and appends its events."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from relay.clock import Clock
from relay.config.models import Speech
from relay.errors import RelayError
from relay.events.envelope import StreamEvent
from relay.ids import new_id
from relay.outbox.records import NewStream
from relay.speech.context import StreamContext
from relay.speech.observations import Observation, SttTranscript, Transcribed
from relay.speech.settings import TrackerSettings
from relay.speech.tracker import Tracker

logger = logging.getLogger(__name__)

MAX_WAITING = 256
"""Above this number of uncommitted events, interims are dropped: they have the lowest value."""


Onlooker = Callable[[StreamEvent], None]
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


class Recorder:
    """Feeds one stream's observations to its tracker and appends the resulting events, in order.

    Lives on one event loop; ``observe`` never blocks and never raises because of the log. ``lost`` is set when the log
    permanently refuses an append: from then on nothing of this stream is recorded.
    """

    def __init__(self, tracker: Tracker, log: EventLog, clock: Clock, onlookers: Sequence[Onlooker] = ()) -> None:
        self._tracker = tracker
        self._log = log
        self._clock = clock
        self._onlookers = tuple(onlookers)
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        self._events_waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self.lost = asyncio.Event()

    def observe(self, observation: Observation) -> None:
        if self._events_waiting > MAX_WAITING and _is_interim(observation):
            return
        now = self._clock.now_ms()
        self._append(self._tracker.observe(observation, now), now)

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
        self._append(self._tracker.tick(now), now)

    def _append(self, events: Sequence[StreamEvent], now: int) -> None:
        if events and not self.lost.is_set():
            appended = asyncio.ensure_future(self._log.append(events))
            self._waiting.add(appended)
            self._events_waiting += len(events)
            appended.add_done_callback(lambda done: self._appended(done, len(events)))
        for onlooker in self._onlookers:
            for event in events:
                onlooker(event)
        self.close()
        if (deadline := self._tracker.deadline) is not None:
            self._timer = self._loop.call_later(max(deadline - now, 0) / 1000, self._tick)

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
            logger.error("a stream can no longer be recorded", exc_info=error)


async def open_recorder(
    outbox: StreamOpener,
    context: StreamContext,
    settings: TrackerSettings,
    clock: Clock,
    onlookers: Sequence[Onlooker] = (),
) -> Recorder:
    """Begin the stream that ``context`` describes. Raises ``StreamTaken``, or ``OutboxError`` where the log fails."""
    new = NewStream(
        id=context.stream_id,
        room_sid=context.room.sid,
        room=context.room.name,
        track_sid=context.track_sid,
        participant=context.participant.identity,
    )
    tracker = Tracker(context, settings, partial(new_id, "utt"))
    return Recorder(tracker, await outbox.open_stream(new), clock, onlookers)


def _is_interim(observation: Observation) -> bool:
    return isinstance(observation, Transcribed | SttTranscript) and not observation.final
