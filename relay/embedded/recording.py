"""Records one stream: observed on the agent's thread, written on the relay's."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from relay.capture.health.error_guard import MAX_FAILURES, ErrorGuard
from relay.clock import Clock
from relay.embedded.mailbox import Mailbox
from relay.embedded.media import shifted
from relay.errors import OutboxError, StreamTaken
from relay.events.envelope import ParticipantRef, RoomRef
from relay.events.source import SourceName
from relay.ids import new_id
from relay.recording.recorder import Recorder, StreamOpener, open_recorder
from relay.speech.context import StreamContext
from relay.speech.observations import Anchored, Ended, Listening, Muted, Observation, SourceDown, SourceUp, Unmuted
from relay.speech.settings import TrackerSettings

log = logging.getLogger(__name__)

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Detectors:
    """A session's detectors, by their names in events."""

    vad: str | None
    stt: str | None
    realtime: str | None


@dataclass(frozen=True, slots=True)
class Heard:
    """The participant that the session listens to. Wall times are epoch milliseconds."""

    room: RoomRef
    participant: ParticipantRef
    track_sid: str
    track_source: str
    subscribed_at: int
    joined_at: int | None
    muted: bool
    detectors: Detectors


class Recording:
    """Records the observations of one track. While it cannot (the log fails, or another process holds the track), it
    retries and drops the observations of that time, as for a stream that begins later.

    ``began_ms`` is where the track's audio begins on the clock of the observations' media times; ``heard_ms`` is where
    it ends so far.
    """

    def __init__(self, heard: Heard, began_ms: int, heard_ms: Callable[[], int]) -> None:
        self._heard = heard
        self._heard_ms = heard_ms
        self._mailbox: Mailbox[Observation] = Mailbox()
        self._zero_ms = began_ms
        self._muted = heard.muted
        self._anchor: Anchored | None = None
        self._down: dict[SourceName, SourceDown] = {}
        self._thrown_away: list[SourceDown] = []
        """Failures that are not recorded yet and still last."""
        self._ended = False
        self._lost: str | None = None
        """An opened stream that can no longer be written. It is still open, so it blocks another one."""

    def tell(self, observation: Observation) -> None:
        """Take an observation. Called on the agent's thread; observations after Ended are dropped."""
        if self._ended:
            return
        match observation:
            case Muted() | Unmuted():
                self._muted = isinstance(observation, Muted)
            case Anchored():
                self._anchor = observation
            case SourceDown(detector):
                self._down[detector] = observation
            case SourceUp(detector):
                self._down.pop(detector, None)
            case Ended():
                self._ended = True
            case _:
                pass
        self._mailbox.put(observation)

    async def run(self, outbox: StreamOpener, settings: TrackerSettings, clock: Clock) -> None:
        """Write until Ended is written, or arrived while nothing could be written."""
        listening = Listening(
            subscribed_at=self._heard.subscribed_at,
            first_frame_at=None,
            joined_at=self._heard.joined_at,
            muted=self._heard.muted,
        )
        while not await self._recorded(listening, outbox, settings, clock):
            if not self._ended:
                await asyncio.sleep(RETRY_S)
                self._mailbox.empty()
                self._thrown_away = list(self._down.values())
            if self._ended:
                return
            self._zero_ms = self._heard_ms()
            listening = Listening(clock.now_ms(), None, self._heard.joined_at, muted=self._muted)

    async def _recorded(
        self, listening: Listening, outbox: StreamOpener, settings: TrackerSettings, clock: Clock
    ) -> bool:
        """Write one stream. False: it could not be opened, or not be written to its end."""
        heard = self._heard
        context = StreamContext(
            stream_id=new_id("str"),
            room=heard.room,
            participant=heard.participant,
            track_sid=heard.track_sid,
            track_source=heard.track_source,
            vad=heard.detectors.vad,
            stt=heard.detectors.stt,
            realtime=heard.detectors.realtime,
        )
        try:
            if self._lost is not None:
                await outbox.give_up(self._lost)
                self._lost = None
            recorder = await open_recorder(outbox, context, settings, clock)
        except StreamTaken:
            log.info("another process records track %s; asking again until none does", heard.track_sid)
            return False
        except OutboxError as error:
            log.error("track %s cannot be recorded: %s", heard.track_sid, error)  # noqa: TRY400 - for operators
            return False
        if await self._written(listening, recorder):
            return True
        self._lost = context.stream_id
        with suppress(OutboxError):  # at the next try, or by the orphan cleanup of this process's streams
            await outbox.give_up(context.stream_id)
            self._lost = None
        return False

    async def _written(self, listening: Listening, recorder: Recorder) -> bool:
        guard = ErrorGuard(max_failures=MAX_FAILURES)
        observe = guard(recorder.observe)
        observe(listening)
        if self._anchor is not None:
            earlier_ms = max(0, self._zero_ms - self._anchor.media_ms)
            observe(Anchored(self._anchor.media_ms + earlier_ms - self._zero_ms, self._anchor.wall_ms + earlier_ms))
        for failed in self._thrown_away:
            observe(failed)
        lost = asyncio.create_task(recorder.lost.wait())
        over = False
        try:
            while not over and not lost.done():
                letter = asyncio.create_task(self._mailbox.take())
                await asyncio.wait([letter, lost], return_when=asyncio.FIRST_COMPLETED)
                if not letter.done():
                    letter.cancel()
                    break
                observation = letter.result()
                observe(shifted(observation, -self._zero_ms))
                over = isinstance(observation, Ended)
            await recorder.flush()
        finally:
            lost.cancel()
            recorder.close()
        # Where the tracker failed, it is unknown whether everything that began has ended.
        return over and not guard.failures and not recorder.lost.is_set()
