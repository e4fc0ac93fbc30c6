"""Records one track: observed on the agent's thread, written on the relay's."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from relay.capture.health.error_guard import MAX_FAILURES, ErrorGuard
from relay.capture.health.supervisor import RETRY_S, StreamSupervisor
from relay.clock import Clock
from relay.embedded.media import shifted
from relay.events.envelope import ParticipantRef, RoomRef
from relay.events.stream import SourceName
from relay.ids import new_id
from relay.recording.recorder import Records, StreamRecord
from relay.speech.context import StreamContext
from relay.speech.observations import Anchored, Ended, Listening, Observation, SourceDown, SourceUp

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_IN_MAILBOX = 4096
"""The maximum number of items: minutes of speech that are not consumed. Further items are dropped."""


class Mailbox(Generic[T]):
    """Any thread puts, without waiting; one event loop takes, in the same order."""

    def __init__(self) -> None:
        self._letters: deque[T] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came = asyncio.Event()

    def put(self, letter: T) -> None:
        if len(self._letters) >= MOST_IN_MAILBOX:
            return
        self._letters.append(letter)
        if self._loop is not None:
            with suppress(RuntimeError):  # a closed loop takes nothing any more
                self._loop.call_soon_threadsafe(self._came.set)

    async def take(self) -> T:
        """Wait for the oldest item and return it."""
        self._loop = asyncio.get_running_loop()
        while not self._letters:
            self._came.clear()
            # An item may have arrived between the check and the clear.
            if not self._letters:
                await self._came.wait()
        return self._letters.popleft()


@dataclass(frozen=True, slots=True)
class SessionDetectors:
    """A session's detectors, by their names in events."""

    vad: str | None
    stt: str | None
    realtime: str | None


@dataclass(frozen=True, slots=True)
class HeardTrack:
    """The participant that the session listens to. Wall times are epoch milliseconds."""

    room: RoomRef
    participant: ParticipantRef
    track_sid: str
    track_source: str
    subscribed_at: int
    joined_at: int | None
    muted: bool
    detectors: SessionDetectors


class Recording:
    """Records the observations of one track. Each stream begins with what lasts: the mute, the tie of the clocks, the
    failures.

    ``began_ms`` is where the track's audio begins on the clock of the observations' media times; ``heard_ms`` is where
    it ends so far.
    """

    def __init__(self, heard: HeardTrack, began_ms: int, heard_ms: Callable[[], int]) -> None:
        self._heard = heard
        self._began_ms = began_ms
        self._heard_ms = heard_ms
        self._mailbox: Mailbox[Observation] = Mailbox()
        self._anchor: Anchored | None = None
        self._down: dict[SourceName, SourceDown] = {}
        self._tried = False

    def report(self, observation: Observation) -> None:
        """Take an observation. Called on the agent's thread; observations after Ended are dropped."""
        self._mailbox.put(observation)

    async def run(self, records: Records, clock: Clock) -> None:
        """Write until Ended is written, or arrived while nothing could be written."""
        open_stream = partial(self._open, records, clock)
        supervisor = StreamSupervisor(self._heard.track_sid, open_stream, muted=self._heard.muted, waits_s=(RETRY_S,))
        # After the supervisor's first attempt: a session may have ended before the log was open.
        passing_on = asyncio.create_task(self._pass_on(supervisor), name="recording_mailbox")
        try:
            await supervisor.task
        finally:
            passing_on.cancel()

    async def _pass_on(self, supervisor: StreamSupervisor) -> None:
        while True:
            match observation := await self._mailbox.take():
                case Ended(reason, heard_ms):
                    supervisor.end(reason, heard_ms=heard_ms)
                    return
                case Anchored():
                    self._anchor = observation
                case SourceDown(source):
                    self._down[source] = observation
                case SourceUp(source):
                    self._down.pop(source, None)
                case _:
                    pass
            supervisor.report(observation)

    async def _open(self, records: Records, clock: Clock, muted: bool) -> "_RecordedTrack | None":
        heard, again, self._tried = self._heard, self._tried, True
        zero_ms = self._heard_ms() if again else self._began_ms
        subscribed_at = clock.now_ms() if again else heard.subscribed_at
        # Of a first stream's failures the observations are still to come.
        failed = list(self._down.values()) if again else []
        record = await records.open(
            StreamContext(
                stream_id=new_id("str"),
                room=heard.room,
                participant=heard.participant,
                track_sid=heard.track_sid,
                track_source=heard.track_source,
                vad=heard.detectors.vad,
                stt=heard.detectors.stt,
                realtime=heard.detectors.realtime,
            )
        )
        if record is None:
            return None
        recorded = _RecordedTrack(record, zero_ms)
        recorded.begin(Listening(subscribed_at, None, heard.joined_at, muted=muted), self._anchor, failed)
        return recorded


class _RecordedTrack:
    """``zero_ms`` is where the stream begins on the clock of the observations."""

    def __init__(self, record: StreamRecord, zero_ms: int) -> None:
        self.stream_id = record.stream_id
        self._record = record
        self._zero_ms = zero_ms
        self._guard = ErrorGuard(max_failures=MAX_FAILURES)
        self._observe = self._guard(record.observe)

    def begin(self, listening: Listening, anchor: Anchored | None, failed: list[SourceDown]) -> None:
        self._observe(listening)
        if anchor is not None:
            earlier_ms = max(0, self._zero_ms - anchor.media_ms)
            self._observe(Anchored(anchor.media_ms + earlier_ms - self._zero_ms, anchor.wall_ms + earlier_ms))
        for down in failed:
            self._observe(down)

    def observe(self, observation: Observation) -> None:
        self._observe(shifted(observation, -self._zero_ms))

    async def failed(self) -> str:
        await self._record.lost()
        return "its stream can no longer be written"

    async def end(self, ended: Ended | None) -> None:
        if ended is not None:
            self._observe(ended)
        # Where the tracker failed, it is unknown whether everything that began has ended.
        await self._record.close(complete=ended is not None and not self._guard.failures)

    async def release(self) -> None:
        self._record.stop()
