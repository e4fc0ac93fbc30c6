"""Runs one agent session that listens to one track."""

import asyncio
import logging
from collections.abc import Callable

from relay.capture.audio.source import SAMPLE_RATE, Track
from relay.capture.detectors import Detectors
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import OnFailure, OnFault, Outages
from relay.capture.health.progress import Backpressure, DrainTracker
from relay.capture.health.watchdog import LOOK_EVERY_S, Watchdog
from relay.capture.session.audio_input import StreamInput
from relay.capture.session.listening_session import ListeningSession
from relay.clock import Clock
from relay.events.stream import StreamEnd
from relay.speech.observations import (
    Anchored,
    Ended,
    Leaving,
    Listening,
    Muted,
    Observation,
    Transcribed,
    TurnEnded,
    Unmuted,
    VadEnded,
    VadStarted,
)

log = logging.getLogger(__name__)

FIRST_FRAME_WITHIN_S = 1.0
"""After this long without audio (the track was published muted) the stream begins anyway."""
SETTLE_WITHIN_S = 2.5
"""How long a closing stream waits for outstanding results."""
REMAINDER = SAMPLE_RATE // 5
"""Samples that a detector may leave unprocessed at the end: it takes audio in windows of its own size."""
ON_ITS_WAY_S = 0.7
"""A realtime model does not report its progress: its reports on the last audio may come this late."""


class StreamSession:
    """Listens to ``track`` from :meth:`start` to :meth:`close` and passes every observation to ``observe``: Listening
    first, Ended last, on the event loop's thread. An exception of ``observe`` is logged and costs that observation
    only.

    LiveKit gets no room, and nothing is ever spoken or published. ``realtime`` false is for files that are fed faster
    than they play; ``away_after_s`` is LiveKit's ``user_away_timeout``; ``on_fault`` is called once per outage of a
    detector, ``on_failure`` with each failure of one that is retried.
    """

    def __init__(
        self,
        track: Track,
        detectors: Detectors,
        observe: Callable[[Observation], None],
        clock: Clock,
        *,
        realtime: bool = True,
        away_after_s: float | None = 15.0,
        on_fault: OnFault = log.warning,
        on_failure: OnFailure | None = None,
    ) -> None:
        self._track = track
        self._guard = ErrorGuard()
        self._observe = self._guard(observe)
        self._pending = DrainTracker(answers_late=detectors.new_realtime is not None)
        self._changed = asyncio.Event()
        self._listening = False
        self._closing: asyncio.Task[None] | None = None
        self._first_frame_timer: asyncio.TimerHandle | None = None
        self._lead = Backpressure(*detectors.paced)
        self._outages = Outages(clock, self._report, self._guard(on_fault), on_failure and self._guard(on_failure))
        self._watchdog = Watchdog(live=realtime, muted=track.muted, transcribed=detectors.new_stt is not None)
        self._watching: asyncio.Task[None] | None = None
        self._input = StreamInput(
            track.audio,
            clock=clock,
            lead=self._lead,
            tail_s=detectors.tail_s,
            realtime=realtime,
            on_anchor=self._guard(self._anchored),
            on_audio_back=self._guard(lambda missed_ms: self._outages.up("audio", missed_ms)),
            on_audio_missed=self._guard(self._missed),
            watchdog=self._watchdog,
        )
        self._listening_session = ListeningSession(
            detectors,
            self._input,
            self._report,
            realtime=realtime,
            away_after_s=away_after_s,
            lead=self._lead,
            guard=self._guard,
            outages=self._outages,
            watchdog=self._watchdog,
        )
        self._hears_late = detectors.new_realtime is not None

    @property
    def failures(self) -> int:
        """The number of callbacks that raised, including ``observe``."""
        return self._guard.failures

    async def start(self) -> None:
        """Start listening."""
        loop = asyncio.get_running_loop()
        self._first_frame_timer = loop.call_later(FIRST_FRAME_WITHIN_S, self._begin, None)
        self._watchdog.begins(loop.time())
        await self._listening_session.start()
        self._watching = asyncio.create_task(self._watch(), name="stream_watch")

    def mute(self) -> None:
        """The participant muted the track. Its frames continue, as silence."""
        self._watchdog.mute(True, asyncio.get_running_loop().time())
        self._report(Muted())

    def unmute(self) -> None:
        self._watchdog.mute(False, asyncio.get_running_loop().time())
        self._report(Unmuted())

    async def ended(self) -> None:
        """Wait until the source ends by itself. Raises its error."""
        await self._input.ended()

    async def close(self, reason: StreamEnd) -> None:
        """Stop listening: the speech in progress is ended and transcribed, within a bound. Then Ended is the last
        observation."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(reason), name="stream_session_close")
        await asyncio.shield(self._closing)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        look = self._guard(self._look)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            look(loop.time())

    def _look(self, now: float) -> None:
        if self._track.refused() and not self._outages.is_down("audio"):
            missed_s = self._watchdog.withheld(now)
            self._listening_session.restart_voice(stalled=False)
            words = "LiveKit does not permit the relay to subscribe to a track any more: its audio does not come"
            self._outages.down("audio", "not_permitted", words, since_ms=round(missed_s * 1000))
        for alarm, missed_s in self._watchdog.alarms(now, self._input.heard_ms):
            match alarm:
                case "audio":
                    # Otherwise open speech would stay open until there is audio again.
                    self._listening_session.restart_voice(stalled=False)
                    words = f"a track that is not muted has given no audio for {missed_s:.0f} s"
                    self._outages.down("audio", "stalled", words, since_ms=round(missed_s * 1000))
                case "session":
                    self._listening_session.renew("stalled", "an agent session takes no audio any more; it is replaced")
                case "vad":
                    self._listening_session.restart_voice(stalled=True)
                case "stt":
                    self._listening_session.restart_words()
        self._listening_session.look()

    async def _close(self, reason: StreamEnd) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._report(Leaving(reason))
        try:
            async with asyncio.timeout(SETTLE_WITHIN_S):
                await self._track.audio.aclose()
                await self._settled()
        except TimeoutError:
            log.info("a stream is closed before all speech has a transcript")
        except Exception as error:
            log.warning("a track could not be closed: %s", type(error).__name__)
        await self._listening_session.aclose()
        self._report(Ended(reason, heard_ms=self._input.heard_ms))

    async def _settled(self) -> None:
        await self._input.drained()
        await self._lead.within(REMAINDER)
        if self._hears_late:
            await asyncio.sleep(ON_ITS_WAY_S)
        await self._listening_session.hang_up()
        loop = asyncio.get_running_loop()
        while self._pending.any(loop.time()):
            self._changed.clear()
            await self._changed.wait()

    def _anchored(self, anchor: Anchored) -> None:
        self._begin(anchor.wall_ms)
        self._report(anchor)

    def _missed(self, missed_ms: int) -> None:
        # Speech before the gap is unrelated to speech after it.
        self._listening_session.restart_voice(stalled=False)
        words = f"this machine is too busy: {missed_ms / 1000:.0f} s of a track's audio are passed over, to catch up"
        self._outages.down("audio", "overloaded", words, since_ms=missed_ms)
        self._outages.up("audio", missed_ms)

    def _begin(self, first_frame_at: int | None) -> None:
        if self._listening:
            return
        self._listening = True
        if self._first_frame_timer is not None:
            self._first_frame_timer.cancel()
        self._observe(listening(self._track, first_frame_at))

    def _report(self, observation: Observation) -> None:
        self._begin(None)
        self._observe(observation)
        self._watchdog.observed(observation, self._input.heard_ms)
        self._pending.see(observation, asyncio.get_running_loop().time())
        self._changed.set()
        if isinstance(observation, VadStarted | VadEnded):
            self._listening_session.voice(observation)
        elif isinstance(observation, TurnEnded | Transcribed):
            self._listening_session.forget()


def listening(track: Track, first_frame_at: int | None) -> Listening:
    """Build the stream's first observation, with its times in order.

    A frame's time is its capture, so it may lie before the moment at which a busy process handled the subscription; the
    subscription nevertheless came before the frame.
    """
    subscribed_at, missed_ms = track.subscribed_at, None
    if first_frame_at is not None:
        subscribed_at = min(subscribed_at, first_frame_at)
        if track.published_at is not None:
            missed_ms = max(0, first_frame_at - track.published_at)
    return Listening(subscribed_at, first_frame_at, track.joined_at, missed_ms, muted=track.muted)
