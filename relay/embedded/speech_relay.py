"""The public interface for a voice agent's own code."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

from livekit.agents import AgentSession, JobContext, inference, llm, stt, vad

from relay.capture.health.error_guard import MAX_FAILURES, ErrorGuard
from relay.capture.health.outages import Outages
from relay.clock import SystemClock
from relay.config.load import load
from relay.config.models import Config
from relay.embedded.background import Background
from relay.embedded.follower import Follower
from relay.embedded.media import MediaClock
from relay.embedded.realtime import RealtimeObserver
from relay.embedded.recording import SessionDetectors
from relay.embedded.stt import SttObserver
from relay.embedded.vad import VadObserver
from relay.events.envelope import RoomRef
from relay.speech.observations import Observation

_UNNAMED = ("", "unknown")


def provider_of(detector: vad.VAD | stt.STT[Any] | llm.RealtimeModel) -> str:
    """The name as in config.yaml: the plugin's, or ``livekit`` for components of livekit-agents."""
    package = type(detector).__module__.split(".")
    match package:
        case ["livekit", "plugins", plugin, *_]:
            return plugin
        case ["livekit", "agents", *_]:
            return "livekit"
    return (_own(detector, "provider") or package[0]).lower()


def name_of(detector: stt.STT[Any] | llm.RealtimeModel) -> str:
    """Provider and model, such as ``deepgram/nova-3``."""
    if isinstance(detector, stt.StreamAdapter):
        return name_of(detector.wrapped_stt)
    provider, model = provider_of(detector), _own(detector, "model")
    return provider if model is None else f"{provider}/{model}"


def _own(detector: object, what: str) -> str | None:
    """The name that the component gives itself, which may be of any type; None for no name."""
    try:
        name = getattr(detector, what)
    except Exception:
        return None
    return name if isinstance(name, str) and name not in _UNNAMED else None


log = logging.getLogger(__name__)

V = TypeVar("V", bound=vad.VAD)
S = TypeVar("S", bound=stt.STT[Any])
M = TypeVar("M", bound=llm.RealtimeModel)
T = TypeVar("T")
R = TypeVar("R")

MOST_GRACE_S = 8.0
"""LiveKit kills a job's process 10 s after its shutdown callbacks began, unless configured otherwise."""
ATTACH_WITHIN_S = 60.0
"""How long a job may use a SpeechRelay without attaching it before the log says so: it may first wait for a user."""


class SpeechRelay:
    """Sends the user's speech in an agent session to the endpoints of a configuration.

        relay = SpeechRelay("config.yaml")
        session = AgentSession(vad=relay.vad(silero.VAD.load()), stt=relay.stt(deepgram.STT()), llm=…, tts=…)
        relay.attach(session, ctx)
        await session.start(agent, room=ctx.room)

    Use one per session. The wrappers are optional: a detector that is not wrapped is not observed, but the session's
    own events are relayed all the same. Apart from being observed, the returned detector behaves exactly like the given
    one.

    After construction it raises nothing, waits for nothing, and logs its errors.
    """

    def __init__(self, config: str | Path | Config = "config.yaml", *, deliver: bool = True) -> None:
        """Read the configuration.

        ``config`` is a file as for ``speech-relay run``, read together with the ``.env`` beside it and the environment.
        With ``deliver`` false a ``speech-relay run`` with the same log does the delivery. Raises ``ConfigError``, with
        a line for each mistake.
        """
        self._config = config if isinstance(config, Config) else load(Path(config), environ=os.environ)
        self._clock = SystemClock()
        self._guard = ErrorGuard(max_failures=MAX_FAILURES)
        self._media = MediaClock(self._clock, self._report)
        self._outages = Outages(self._clock, self._report, _complain)
        self._vads = VadObserver(self._report, self._media, self._guard, self._outages)
        self._stts = SttObserver(self._report, self._media, self._guard)
        self._models = RealtimeObserver(self._report, self._media, self._guard)
        self._vad: str | None = None
        self._stt: str | None = None
        self._deliver = deliver
        self._background: Background | None = None
        self._closing: asyncio.Task[None] | None = None
        self._follower: Follower | None = None
        self._unattached: asyncio.TimerHandle | None = None
        """Runs in a job that has not attached this yet."""
        self._expect_attach()

    def vad(self, detector: V) -> V:
        """Observe a detector: its speech starts and ends are reported, with their times."""

        def overheard() -> V:
            wrapped = self._vads.wrap(detector)
            self._vad = provider_of(detector)
            return wrapped

        return _or(detector, overheard)

    @overload
    def stt(self, provider: S) -> S: ...

    @overload
    def stt(self, provider: str) -> inference.STT | str: ...

    def stt(self, provider: S | str) -> S | inference.STT | str:
        """Observe a provider: its words are reported, with their times and confidence.

        A string names a model of LiveKit Inference, as for a session.
        """

        def overheard() -> S | inference.STT:
            known = inference.STT.from_model_string(provider) if isinstance(provider, str) else provider
            wrapped = self._stts.wrap(known)
            self._stt = name_of(known)
            return wrapped

        return _or(provider, overheard)

    @overload
    def realtime(self, model: M) -> M: ...

    @overload
    def realtime(self, model: str) -> llm.RealtimeModel | str: ...

    def realtime(self, model: M | str) -> M | llm.RealtimeModel | str:
        """Observe a realtime model: its reports of the user's speech are relayed, its own output is not.

        A string names a model of LiveKit Inference, as for a session.
        """

        def overheard() -> M | llm.RealtimeModel:
            known: Any = inference.llm_from_model_string(model) if isinstance(model, str) else model
            wrapped: M | llm.RealtimeModel = self._models.wrap(known)
            return wrapped

        return _or(model, overheard)

    def attach(self, session: AgentSession[Any], ctx: JobContext) -> None:
        """Follow the session, from now until it closes; best before it starts.

        When the job shuts down, pending events are written and sent, for ``shutdown.grace`` and at most 8 s.
        """
        self._guard(self._attach)(session, ctx)

    async def aclose(self) -> None:
        """Do the job's shutdown step early, for sessions that end before their job.

        A second call, as that of the job itself, waits for the same end. Cancelling a call does not stop it.
        """
        self._guard(self._leave)()
        background, self._background = self._background, None
        if background is not None:
            self._closing = asyncio.create_task(background.aclose(), name="speech-relay closing")
        elif self._unattached is not None and not self._unattached.cancelled():
            self._say_unattached()
        try:
            if self._closing is not None:
                await asyncio.shield(self._closing)
        except Exception as error:
            log.error("speech-relay did not stop in order (%s)", type(error).__name__)  # noqa: TRY400 - a message may quote a transcript

    def _attach(self, session: AgentSession[Any], ctx: JobContext) -> None:
        if self._background is not None:
            log.error("a SpeechRelay follows one session; make another one for the next")
            return
        if self._unattached is not None:
            self._unattached.cancel()
        grace_s = min(self._config.shutdown.grace.total_seconds(), MOST_GRACE_S)
        background = Background(self._config, self._clock, deliver=self._deliver, grace_s=grace_s)
        background.start()
        self._background = background  # one that did not start has nothing to wait for
        ctx.add_shutdown_callback(self.aclose)
        self._follower = Follower(
            session,
            ctx.room,
            RoomRef(sid=ctx.job.room.sid, name=ctx.job.room.name),
            kinds=self._config.capture.participants.kinds,
            detectors=self._detectors,
            media=self._media,
            outages=self._outages,
            record=background.record,
            clock=self._clock,
            guard=self._guard,
        )

    def _leave(self) -> None:
        if self._follower is not None:
            self._follower.close("shutdown")

    def _expect_attach(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # made before the job, in a prewarm function: its first report begins the wait
            return
        self._unattached = loop.call_later(ATTACH_WITHIN_S, self._say_unattached)

    def _say_unattached(self) -> None:
        if self._unattached is not None:
            self._unattached.cancel()
        log.warning("this SpeechRelay is attached to no session: it reports nothing until relay.attach(session, ctx)")

    def _report(self, observation: Observation) -> None:
        if self._follower is not None:
            self._follower.report(observation)
        elif self._background is None and self._unattached is None:
            self._expect_attach()

    def _detectors(self, session: AgentSession[Any]) -> SessionDetectors:
        # Without its own reports, voice activity opens nothing, so it is only named where it is observed.
        return SessionDetectors(
            vad=self._vad,
            stt=self._stt or (name_of(session.stt) if session.stt is not None else None),
            realtime=name_of(session.llm) if isinstance(session.llm, llm.RealtimeModel) else None,
        )


def _or(thing: T, overheard: Callable[[], R]) -> T | R:
    """Instrument the component; return it unchanged where that fails."""
    try:
        return overheard()
    except Exception as error:
        kinds = type(thing).__name__, type(error).__name__
        log.error("speech-relay cannot overhear a %s (%s): it is used as it is", *kinds)  # noqa: TRY400 - a message may quote anything
        return thing


def _complain(words: str) -> None:
    log.warning("speech-relay: %s", words)
