"""Runs the agent session of one stream with its detectors; restarts it when it stops."""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Literal

from livekit.agents import AgentSession, CloseEvent
from livekit.agents.types import NOT_GIVEN
from livekit.agents.voice.agent_session import SessionConnectOptions

from relay.capture.detectors import Detectors
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import RESTART_S, Backoff, Outages
from relay.capture.health.progress import Backpressure
from relay.capture.health.watchdog import Watchdog
from relay.capture.realtime.session import ListeningModel
from relay.capture.session.audio_input import StreamInput
from relay.capture.session.tap import ListeningAgent, SessionTap, forget_recorded_events
from relay.capture.stt.tap import SttTap
from relay.capture.vad.tap import TappedVad
from relay.events.stream import SourceFailure
from relay.speech.observations import DetectorLost, Observation, VadEnded, VadStarted

log = logging.getLogger(__name__)

CLOSE_WITHIN_S = 5.0
"""How long LiveKit may take to close a session before the session is abandoned."""

STEADY_S = 60.0
"""A session that ran for this long was good."""


class ListeningSession:
    """Listens to ``audio`` from :meth:`start` to :meth:`aclose` and reports to ``report``.

    LiveKit gets no room, and nothing is ever spoken or published.
    """

    def __init__(
        self,
        detectors: Detectors,
        audio: StreamInput,
        report: Callable[[Observation], None],
        *,
        realtime: bool,
        away_after_s: float | None,
        lead: Backpressure,
        guard: ErrorGuard,
        outages: Outages,
        watchdog: Watchdog,
    ) -> None:
        self._detectors = detectors
        self._audio = audio
        self._report = report
        self._away_after_s = away_after_s
        self._lead = lead
        self._guard = guard
        self._outages = outages
        self._watchdog = watchdog
        self._stt = self._tapped_stt()
        self._vad = self._tapped_vad()
        self._realtime_model = self._listening_model()
        self._tap = SessionTap(report, on_closed=self._session_closed, realtime=realtime, guard=guard)
        self._session = self._new_session()
        self._began_at = 0.0
        self._backoff = Backoff(RESTART_S)
        self._dropped_ms = 0
        """The outages of its audio reported so far."""
        self._renewing: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Start listening."""
        self._tap.attach(self._session)
        self._session.input.audio = self._audio
        loop = asyncio.get_running_loop()
        self._began_at = loop.time()
        # Without the job's context: with it LiveKit would close the job's first session at shutdown, before its
        # transcripts are in, and keep every session until the job ends.
        await loop.create_task(self._start(self._session), context=contextvars.Context())

    async def hang_up(self) -> None:
        """No more audio comes. Returns once speech recognition has sent its last result."""
        if self._stt is not None:
            await self._stt.hang_up()

    async def aclose(self) -> None:
        """Stop listening."""
        self._closing = True
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        if self._stt is not None:
            self._stt.stop()
        await self._put_away(self._session)
        for model in (self._stt, self._realtime_model):
            if model is not None:
                await model.aclose()

    def voice(self, edge: VadStarted | VadEnded) -> None:
        """Pass a voice activity observation on to speech recognition."""
        if self._stt is not None:
            self._stt.voice(edge)

    def forget(self) -> None:
        """Drop what LiveKit keeps of the input."""
        forget_recorded_events(self._session)

    def look(self) -> None:
        """Run the time-based checks; call it about every second."""
        # LiveKit keeps its metrics and states even where nothing is said or recognized.
        self.forget()
        if self._stt is not None:
            self._stt.look()

    def restart_voice(self, *, stalled: bool) -> None:
        """Voice activity detection stopped reporting (``stalled``), or was cut off from its audio."""
        if self._vad is not None:
            self._vad.restart(stalled=stalled)
        for model in (self._stt, self._realtime_model):
            if model is not None and not stalled:
                model.cut_off()

    def restart_words(self) -> None:
        """Speech recognition stopped reporting."""
        if self._stt is not None:
            self._stt.stalled()

    def renew(self, reason: SourceFailure, words: str) -> None:
        """Restart the stopped session. ``words`` are for the operator."""
        if self._closing or self._renewing is not None:
            return
        self._outages.down("session", reason, words)
        self._report(DetectorLost())
        self._renewing = asyncio.create_task(self._renew(), name="session_renew")

    def _new_session(self) -> AgentSession[None]:
        return AgentSession(
            stt=self._stt.declared if self._stt is not None else NOT_GIVEN,
            vad=self._vad,
            llm=self._realtime_model or NOT_GIVEN,
            turn_handling={
                "turn_detection": self._turn_detection,
                "interruption": {"mode": "vad"},
                "preemptive_generation": {"enabled": False},
            },
            user_away_timeout=self._away_after_s,
            aec_warmup_duration=None,
            # Pending texts are awaited before.
            session_close_transcript_timeout=0.0,
            conn_options=SessionConnectOptions(max_unrecoverable_errors=10**9),
        )

    async def _start(self, session: AgentSession[None]) -> None:
        # LiveKit's default session host would publish the session's events to the whole room.
        await session.start(ListeningAgent(self._stt, self._tap.on_turn), record=False, session_host=False)

    async def _renew(self) -> None:
        # The next one gets the audio that has no final yet, and with it the text.
        self._tap.hear_no_more(self._session)
        now = asyncio.get_running_loop().time()
        if now - self._began_at >= STEADY_S:
            self._backoff.reset()
        while True:
            self._watchdog.unattended()
            await self._put_away(self._session)
            await asyncio.sleep(self._backoff.wait_s())
            self._session = self._new_session()
            try:
                await self.start()
            except Exception as error:
                log.info("an agent session cannot be replaced: %s; trying again", type(error).__name__)
            else:
                break
        self._renewing = None
        # Meanwhile its audio has waited, up to the source's buffer.
        dropped_ms = self._audio.dropped_ms
        self._outages.up("session", missed_ms=dropped_ms - self._dropped_ms)
        self._dropped_ms = dropped_ms

    async def _put_away(self, session: AgentSession[None]) -> None:
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await session.aclose()
        except TimeoutError:
            log.warning("LiveKit did not close an agent session within %g s; it is left behind", CLOSE_WITHIN_S)
        except Exception as error:
            log.warning("LiveKit failed to close an agent session: %s", type(error).__name__)

    @property
    def _turn_detection(self) -> Literal["realtime_llm", "vad", "stt"]:
        if self._realtime_model is not None:
            return "realtime_llm"
        return "vad" if self._vad is not None else "stt"

    def _tapped_stt(self) -> SttTap | None:
        if self._detectors.new_stt is None:
            return None
        return SttTap(
            self._detectors.new_stt(),
            self._detectors.stt or "stt",
            voiced=self._detectors.shared_vad is not None,
            report=self._report,
            on_speech_lost=lambda: self._report(DetectorLost()),
            lead=self._lead,
            guard=self._guard,
            outages=self._outages,
        )

    def _tapped_vad(self) -> TappedVad | None:
        if self._detectors.shared_vad is None:
            return None
        return TappedVad(
            self._detectors.shared_vad,
            report=self._report,
            on_closed=self._voice_closed,
            lead=self._lead,
            guard=self._guard,
            outages=self._outages,
            watchdog=self._watchdog,
        )

    def _listening_model(self) -> ListeningModel | None:
        if self._detectors.new_realtime is None:
            return None
        return ListeningModel(
            self._detectors.new_realtime(),
            self._detectors.realtime or "realtime",
            report=self._report,
            guard=self._guard,
            outages=self._outages,
        )

    def _voice_closed(self) -> None:
        self.renew("lost", "LiveKit stopped voice activity detection of a track by itself; its session is replaced")

    def _session_closed(self, event: CloseEvent) -> None:
        self.renew("lost", f"LiveKit closed an agent session by itself ({event.reason.value}); it is replaced")
