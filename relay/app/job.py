"""A job process: one LiveKit room, from joining to leaving.

LiveKit starts each job in a separate process, which imports this module again: everything here is found by name.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from livekit import rtc
from livekit.agents import JobContext, JobProcess

from relay.app.orphans import job_name
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.detectors import Providers
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.livekit.access import Access, RoomsOnly
from relay.capture.livekit.forwarding import Forwarding
from relay.capture.livekit.joining import join_room
from relay.capture.livekit.room import RoomMembership
from relay.capture.livekit.stream_limits import Limits
from relay.capture.observe.room import ObservedRoom
from relay.capture.worker.job_processes import end_after_service, for_provider
from relay.clock import Clock, SystemClock, span
from relay.config.capture import Capture, Observe
from relay.config.models import Config, Speech, Spill
from relay.errors import OutboxError
from relay.events.envelope import RoomRef
from relay.events.operator import CaptureLimit, CaptureLimited, CaptureLimitedData
from relay.outbox.metrics import LogMetrics
from relay.outbox.opening import client_variables
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from relay.recording.metrics import CaptureMetrics
from relay.recording.overlaps import Overlaps
from relay.recording.recorder import EventListener, Records, tracker_settings
from relay.recording.track import Listeners, Observers
from relay.telemetry.job_counts import CountReports

logger = logging.getLogger(__name__)

MOST_APPENDED = 5_000

JOBS_SHARE = 0.6
"""Share of ``shutdown.grace`` in which jobs end their streams. The rest is for sending the last events."""

_LEAVE_MARGIN_S = 3.0
"""The part of it that LiveKit needs after the streams have ended: to leave the room and end the process."""


class JobRoom(Protocol):
    """A job's room, as LiveKit identifies it."""

    @property
    def name(self) -> str: ...

    @property
    async def sid(self) -> str: ...


class Limited:
    """Append ``capture.limited`` in the background. Requires a running event loop."""

    def __init__(self, outbox: Outbox, room: JobRoom, metrics: CaptureMetrics) -> None:
        self._outbox = outbox
        self._room = room
        self._metrics = metrics
        self._reporting: set[asyncio.Task[None]] = set()

    def __call__(self, limit: CaptureLimit, maximum: int, participant_sid: str | None) -> None:
        self._metrics.reached(limit)
        task = asyncio.create_task(self._report(limit, maximum, participant_sid), name="capture_limited")
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    async def _report(self, limit: CaptureLimit, maximum: int, participant_sid: str | None) -> None:
        room = RoomRef(sid=await self._room.sid, name=self._room.name)
        data = CaptureLimitedData(limit=limit, maximum=maximum, room=room, participant_sid=participant_sid)
        try:
            await self._outbox.tell(CaptureLimited, data)
        except OutboxError as error:
            logger.warning("capture.limited cannot be recorded: %s", error)


@dataclass(frozen=True, slots=True)
class JobConfig:
    """Everything a job process receives: no endpoint, no signing secret, and not the LiveKit project's secret."""

    run: str
    """The service's run that it belongs to."""
    capture: Capture = field(repr=False)
    speech: Speech
    outbox_url: str = field(repr=False)
    spill: Spill
    server: RoomsOnly
    grace_s: float
    """Seconds that a job may take to end."""
    variables: Mapping[str, str] = field(repr=False)
    """The environment variables that its provider reads."""
    counts: str
    """The socket to which it reports what it counts."""
    traced: bool
    """Whether it also reports what it appends, for the service's traces."""

    @classmethod
    def of(
        cls,
        config: Config,
        access: Access,
        *,
        run: str,
        variables: Mapping[str, str],
        counts: str,
        traced: bool,
    ) -> "JobConfig":
        return cls(
            run=run,
            capture=config.capture,
            speech=config.speech,
            outbox_url=config.outbox.url,
            spill=config.outbox.spill,
            server=access.rooms_only(),
            grace_s=grace_s(config),
            variables=dict(variables),
            counts=counts,
            traced=traced,
        )


def grace_s(config: Config) -> float:
    """Seconds that a job may take to end."""
    return config.shutdown.grace.total_seconds() * JOBS_SHARE


def provider_variables(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the configured provider reads, from ``environ`` and from the ``livekit`` section; and those of
    the database's client."""
    capture, livekit = config.capture, config.livekit
    database = client_variables(config.outbox.url, environ)
    if capture.observe is not None:
        return database
    keys = {
        "LIVEKIT_API_KEY": livekit.api_key,
        "LIVEKIT_API_SECRET": livekit.api_secret.get_secret_value() if livekit.api_secret else None,
    }
    known = {**environ, **{name: value for name, value in keys.items() if value}}
    provider = capture.realtime.provider if capture.realtime is not None else capture.stt.provider
    return database | for_provider(provider, known, also=capture.environment)


def prepare(config: JobConfig, process: JobProcess) -> None:
    """Do slow work before a room needs it. The service limits the time until the process starts."""
    os.environ.update(config.variables)
    end_after_service(config.grace_s)
    process.userdata["config"] = config
    process.userdata["name"] = job_name(config.run, os.getpid())
    # The SDK's first object starts its runtime: 10 ms, 100 on a busy machine, on the job's event loop.
    rtc.AudioResampler(SAMPLE_RATE, SAMPLE_RATE * 2)
    if config.capture.observe is None:
        process.userdata["providers"] = Providers(config.capture.vad, config.capture.stt, config.capture.realtime)


async def entry(context: JobContext) -> None:
    """Join the room and listen to its participants, or to what an agent there hears."""
    config: JobConfig = context.proc.userdata["config"]
    clock = SystemClock()
    metrics, log_metrics = CaptureMetrics(), LogMetrics("room")
    name: str = context.proc.userdata["name"]
    try:
        # The service that started this job goes on when the tables are upgraded meanwhile: so must its rooms.
        outbox = await Outbox.open(
            config.outbox_url, name=name, clock=clock, metrics=log_metrics, spill=config.spill, or_newer=True
        )
    except OutboxError as error:  # raised further, LiveKit would log it with a traceback
        logger.error("the room cannot be heard, tried again in some seconds: %s", error)  # noqa: TRY400 - for operators
        context.shutdown(reason="the log cannot be used")
        return
    context.proc.userdata["outbox"] = outbox
    families = (*metrics.families, *log_metrics.families)
    appended = AppendedEvents(clock)
    if config.traced:
        log_metrics.on_append = appended
    context.proc.userdata["counts"] = counts = CountReports(config.counts, families, metrics.levels, appended.waiting)
    await counts.start()
    if config.capture.observe is not None:
        await _observe(context, config, config.capture.observe, outbox, clock, metrics)
    else:
        await _listen(context, config, outbox, clock, metrics)


class AppendedEvents:
    """Collects what was appended, as the service's traces take it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.waiting: deque[tuple[str, str, int, int]] = deque(maxlen=MOST_APPENDED)
        """Ids and types, and when each was made and committed; the oldest are dropped if nothing takes them."""

    def __call__(self, records: Sequence[Record]) -> None:
        now = self._clock.now_ms()
        self.waiting += [(record.id, record.type, record.emitted_at, now) for record in records]


async def _observe(
    context: JobContext, config: JobConfig, observe: Observe, outbox: Outbox, clock: Clock, metrics: CaptureMetrics
) -> None:
    room = ObservedRoom(
        context.room,
        Observers(Records(outbox, clock, tracker_settings(config.speech), metrics=metrics)),
        agent=observe.agent,
        kinds=config.capture.participants.kinds,
        clock=clock,
        access=config.server,
    )
    context.proc.userdata["membership"] = room
    await join_room(context)
    await room.start()
    _begun(context, clock, metrics)


async def _listen(
    context: JobContext, config: JobConfig, outbox: Outbox, clock: Clock, metrics: CaptureMetrics
) -> None:
    providers: Providers = context.proc.userdata["providers"]
    guard = ErrorGuard()
    context.proc.userdata["overlaps"] = overlaps = Overlaps(outbox, clock, capture=config.capture, speech=config.speech)
    event_listeners: list[EventListener] = [guard(overlaps.take)]
    if config.capture.forward_transcripts:
        context.proc.userdata["forwarding"] = forwarding = Forwarding(context.room)
        event_listeners.append(guard(forwarding.take))
    listeners = Listeners(
        outbox,
        providers.detectors(),
        clock,
        capture=config.capture,
        speech=config.speech,
        event_listeners=event_listeners,
        metrics=metrics,
    )
    wanted = config.capture.participants
    membership = RoomMembership(
        context.room,
        listeners,
        wanted.kinds,
        clock,
        config.server,
        sources=wanted.sources,
        limits=Limits(config.capture.max_tracks_per_participant, config.capture.max_streams_per_room),
        on_limited=Limited(outbox, context.room, metrics),
        was_heard=outbox.was_heard,
    )
    context.proc.userdata["membership"] = membership
    await join_room(context)
    membership.start()
    _begun(context, clock, metrics)


def _begun(context: JobContext, clock: Clock, metrics: CaptureMetrics) -> None:
    metrics.rooms.inc()
    context.proc.userdata["began"] = clock.steady_ms(), metrics
    logger.info("Listening in room %s", context.job.room.name)


async def leave(context: JobContext) -> None:
    """Stop listening and log what was heard. LiveKit calls this when the job ends, for any reason."""
    userdata = context.proc.userdata
    if (membership := userdata.pop("membership", None)) is not None:
        await membership.close("shutdown", within=max(1.0, userdata["config"].grace_s - _LEAVE_MARGIN_S))
    event_listeners = [userdata.pop(name) for name in ("overlaps", "forwarding") if name in userdata]
    await asyncio.gather(*(each.aclose() for each in event_listeners))
    if (outbox := userdata.pop("outbox", None)) is not None:
        await outbox.aclose()
    if (counts := userdata.pop("counts", None)) is not None:
        await counts.aclose()
    if "providers" in userdata:
        await userdata["providers"].aclose()
    if (began := userdata.pop("began", None)) is not None:
        began_ms, metrics = began
        listened_ms = SystemClock().steady_ms() - began_ms
        logger.info(
            "Stopped listening in room %s after %s",
            context.job.room.name,
            span(listened_ms),
            extra={"room": context.job.room.name, "listened_ms": listened_ms, **metrics.summary()},
        )
