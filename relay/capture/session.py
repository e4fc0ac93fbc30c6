"""One agent session that listens to one track."""

import asyncio
import contextvars
import logging
from collections.abc import Callable

from livekit.agents import AgentSession, CloseEvent
from livekit.agents.types import NOT_GIVEN
from livekit.agents.voice.agent_session import SessionConnectOptions

from relay.capture.audio_input import StreamInput
from relay.capture.faults import OnFault
from relay.capture.guard import Guard
from relay.capture.lead import Lead
from relay.capture.pending import Pending
from relay.capture.providers.detectors import Detectors
from relay.capture.recorded import forget_recorded_events
from relay.capture.source import SAMPLE_RATE, Track
from relay.capture.taps.session import ListeningAgent, SessionTap
from relay.capture.taps.stt import SttTap
from relay.capture.taps.vad import TappedVad
from relay.clock import Clock
from relay.events.stream import StreamEnd
from relay.speech.observations import (
    Anchored,
    DetectorLost,
    Ended,
    Leaving,
    Listening,
    Muted,
    Observation,
    Transcribed,
    TurnEnded,
    Unmuted,
)

log = logging.getLogger(__name__)

FIRST_FRAME_WITHIN_S = 1.0
"""A track that gives no audio by then (it was published muted) is listened to all the same."""
SETTLE_WITHIN_S = 2.0
"""How long a closing stream waits for what it still owes."""
REMAINDER = SAMPLE_RATE // 5
"""Samples that a detector may leave lying at the end: it takes audio in pieces of its own size."""
CLOSE_WITHIN_S = 5.0
"""How long LiveKit may take to close a session, before it is left behind."""


class StreamSession:
    """Listens to ``track`` from :meth:`start` to :meth:`close` and tells ``observe`` everything it hears: Listening
    first, Ended last, on the event loop's thread. What ``observe`` raises is logged and costs that observation only.

    No room is handed to LiveKit and nothing is ever said or published. ``realtime`` false is for files that are fed
    faster than they play; ``away_after_s`` is LiveKit's ``user_away_timeout``; ``on_fault`` is told once per outage of
    a detector.
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
    ) -> None:
        self._track = track
        self._guard = Guard()
        self._observe = self._guard(observe)
        self._pending = Pending(answers_late=detectors.new_stt is not None and "stt" not in detectors.paced)
        self._changed = asyncio.Event()
        self._listening = False
        self._closing: asyncio.Task[None] | None = None
        self._first_frame_timer: asyncio.TimerHandle | None = None
        self._lead = Lead(*detectors.paced)
        self._input = StreamInput(
            track.audio,
            clock=clock,
            lead=self._lead,
            tail_s=detectors.tail_s,
            realtime=realtime,
            on_anchor=self._guard(self._anchored),
        )
        self._on_fault = self._guard(on_fault)
        self._stt = self._tapped_stt(detectors)
        vad = self._tapped_vad(detectors)
        self._tap = SessionTap(self._report, on_closed=self._session_closed, realtime=realtime, guard=self._guard)
        self._agent = ListeningAgent(self._stt, self._tap.on_turn)
        self._session: AgentSession[None] = AgentSession(
            stt=self._stt.declared if self._stt is not None else NOT_GIVEN,
            vad=vad,
            turn_handling={
                "turn_detection": "vad" if vad is not None else "stt",
                "interruption": {"mode": "vad"},
                "preemptive_generation": {"enabled": False},
            },
            user_away_timeout=away_after_s,
            aec_warmup_duration=None,
            # What is owed is waited for by close(). Without voice activity nobody knows what that is.
            session_close_transcript_timeout=0.0 if vad is not None else 1.0,
            conn_options=SessionConnectOptions(max_unrecoverable_errors=10**9),
        )

    @property
    def failures(self) -> int:
        """Callbacks that raised, ``observe`` among them."""
        return self._guard.failures

    async def start(self) -> None:
        """Begin to listen."""
        self._tap.attach(self._session)
        self._session.input.audio = self._input
        loop = asyncio.get_running_loop()
        self._first_frame_timer = loop.call_later(FIRST_FRAME_WITHIN_S, self._begin, None)
        # Without the job's context: with it LiveKit would close the job's first session by itself at shutdown, before
        # its transcripts are in, and keep every session that ever was until the job ends.
        await loop.create_task(self._start(), context=contextvars.Context())

    def mute(self) -> None:
        """The participant muted the track. Its frames go on, as silence."""
        self._report(Muted())

    def unmute(self) -> None:
        self._report(Unmuted())

    async def ended(self) -> None:
        """Wait until the source is over by itself. Raises what it raised."""
        await self._input.ended()

    async def close(self, reason: StreamEnd) -> None:
        """Stop listening: what is under way is ended and transcribed, within a bound. Then Ended is the last word."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(reason), name="stream_session_close")
        await asyncio.shield(self._closing)

    def _tapped_stt(self, detectors: Detectors) -> SttTap | None:
        if detectors.new_stt is None:
            return None
        return SttTap(
            detectors.new_stt(),
            detectors.stt or "stt",
            report=self._report,
            lead=self._lead,
            guard=self._guard,
            on_fault=self._on_fault,
        )

    def _tapped_vad(self, detectors: Detectors) -> TappedVad | None:
        if detectors.shared_vad is None:
            return None
        return TappedVad(
            detectors.shared_vad,
            report=self._report,
            on_closed=self._vad_closed,
            lead=self._lead,
            guard=self._guard,
        )

    async def _start(self) -> None:
        # LiveKit's default session host would publish the session's events to the whole room.
        await self._session.start(self._agent, record=False, session_host=False)

    async def _close(self, reason: StreamEnd) -> None:
        self._report(Leaving(reason))
        try:
            async with asyncio.timeout(SETTLE_WITHIN_S):
                await self._track.audio.aclose()
                await self._settled()
        except TimeoutError:
            log.info("a stream is closed before all that was said has its transcript")
        except Exception as error:
            log.warning("a track could not be closed: %s", type(error).__name__)
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._session.aclose()
                if self._stt is not None:
                    await self._stt.aclose()
        except TimeoutError:
            log.warning("LiveKit did not close an agent session within %g s; it is left behind", CLOSE_WITHIN_S)
        except Exception as error:
            log.warning("LiveKit failed to close an agent session: %s", type(error).__name__)
        self._report(Ended(reason, heard_ms=self._input.heard_ms))

    async def _settled(self) -> None:
        await self._input.drained()
        await self._lead.within(REMAINDER)
        loop = asyncio.get_running_loop()
        while self._pending.any(loop.time()):
            self._changed.clear()
            await self._changed.wait()

    def _anchored(self, anchor: Anchored) -> None:
        self._begin(anchor.wall_ms)
        self._report(anchor)

    def _begin(self, first_frame_at: int | None) -> None:
        if self._listening:
            return
        self._listening = True
        if self._first_frame_timer is not None:
            self._first_frame_timer.cancel()
        track = self._track
        missed = None if first_frame_at is None or track.published_at is None else first_frame_at - track.published_at
        self._observe(
            Listening(
                subscribed_at=track.subscribed_at,
                first_frame_at=first_frame_at,
                joined_at=track.joined_at,
                missed_ms=None if missed is None else max(0, missed),
                muted=track.muted,
            )
        )

    def _report(self, observation: Observation) -> None:
        self._begin(None)
        self._observe(observation)
        self._pending.see(observation, asyncio.get_running_loop().time())
        self._changed.set()
        if isinstance(observation, TurnEnded | Transcribed):
            forget_recorded_events(self._session)

    def _vad_closed(self) -> None:
        if self._closing is None:
            self._on_fault("voice activity detection of a track stopped by itself; its speech is no longer noticed")
            self._report(DetectorLost())

    def _session_closed(self, event: CloseEvent) -> None:
        if self._closing is None:
            self._on_fault(f"LiveKit closed an agent session by itself ({event.reason.value}); its track is deaf")
            self._report(DetectorLost())
