"""``speech-relay run``: connects all parts, and stops them in order."""

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import psutil

from relay.api.appends import Appends
from relay.api.backend import Backend
from relay.api.health import Readiness
from relay.api.routes.all import routers_of
from relay.api.server import HttpServer
from relay.app import job
from relay.app.delivery import delivering
from relay.app.orphans import OwnJobs, close_orphans, close_orphans_once
from relay.app.reload import Reload, ReloadSource
from relay.app.status import Figures, StatusReports
from relay.capture.detectors import Providers
from relay.capture.livekit.access import Access
from relay.capture.worker.coverage import Coverage
from relay.capture.worker.worker import Worker
from relay.clock import SystemClock
from relay.config.api import listening
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.errors import OutboxError, RelayError, first_of
from relay.events.catalog import parse
from relay.events.operator import CaptureLimited
from relay.events.stream import SourceFailed
from relay.outbox.operator.access import open_log
from relay.outbox.operator.event_queries import EventFilter
from relay.outbox.outbox import Outbox
from relay.telemetry.metrics import Counts, Gauge

logger = logging.getLogger(__name__)

COUNT_EVERY_S = 5.0
"""Seconds between two reads of the log. Prometheus scrapes less often than that."""

_TYPES = tuple(str(kind.model_fields["type"].default) for kind in (SourceFailed, CaptureLimited))


class FailureCounts:
    """Counts since this process started. Job processes have no metrics of their own: what they append is counted
    here."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._failed: Counter[tuple[str, ...]] = Counter()
        self._limited: Counter[tuple[str, ...]] = Counter()

    @property
    def metrics(self) -> tuple[Counts, ...]:
        return (
            Counts("sources_failed", "Outages of what is heard with.", ("detector", "reason"), lambda: self._failed),
            Counts("capture_limited", "Times that a limit of capture was told of.", ("limit",), lambda: self._limited),
        )

    async def run(self) -> None:
        """Run until cancelled."""
        tail = await self._outbox.tail(EventFilter(types=_TYPES))
        while True:
            await asyncio.sleep(COUNT_EVERY_S)
            try:
                for body in await tail():
                    self._count(body)
            except OutboxError as error:
                logger.warning("failures cannot be counted for the metrics now: %s", error)

    def _count(self, body: bytes) -> None:
        match parse(body):
            case SourceFailed(data=data):
                self._failed[data.detector, data.reason] += 1
            case CaptureLimited(data=data):
                self._limited[data.limit,] += 1


async def prove_usable(config: Config) -> None:
    """Require credentials, and load what jobs will load: a missing plugin or key prevents the start.

    Otherwise every call would fail. Raises ``RelayError``; nothing needs cleanup then.
    """
    Access.of(config.livekit)
    if config.capture.observe is not None:
        return
    providers = Providers(config.capture.vad, config.capture.stt, config.capture.realtime, models=False)
    try:
        providers.detectors()
    finally:
        await providers.aclose()


async def run_service(
    config: Config, stop: asyncio.Event, source: ReloadSource, reload: asyncio.Event, variables: Mapping[str, str]
) -> None:
    """Listen and deliver until ``stop`` is set, then end streams, drain and return within ``shutdown.grace``.

    The endpoints follow ``source`` when its files change, and whenever ``reload`` is set. ``variables`` are the
    environment variables that the provider reads: job processes get no others.

    Raises ``RelayError`` for errors that prevent the service from starting, or from continuing.
    """
    try:
        await _run(config, stop, source, reload, variables)
    except* RelayError as errors:
        raise first_of(errors) from None


async def _run(
    config: Config, stop: asyncio.Event, source: ReloadSource, reload: asyncio.Event, variables: Mapping[str, str]
) -> None:
    clock, access = SystemClock(), Access.of(config.livekit)
    async with AsyncExitStack() as stack:
        outbox = await Outbox.open(config.outbox.url, name="relay", clock=clock, sole=True)
        stack.push_async_callback(outbox.aclose)
        # Before the first stream: one that is opened before its endpoints are known has no lanes.
        await outbox.lanes.sync_endpoints([endpoint.name for endpoint in config.endpoints])
        run = uuid.uuid4().hex
        for_jobs = job.JobConfig.of(config, access, run=run, variables=variables)
        worker = _worker(config, access, for_jobs, worker_id=await outbox.identity())
        own_jobs = OwnJobs(run, kill=worker.kill_job)
        coverage = Coverage(
            access,
            agent_name=config.livekit.agent_name,
            rooms=config.capture.rooms,
            jobs=worker.jobs,
            clock=clock,
            on_back=worker.connect_now,
        )
        endpoints = list(config.endpoints)
        failures, readiness = FailureCounts(outbox), _readiness(worker, coverage)
        appends = Appends(stop)
        http = None
        if served := listening(config.api, config.admin):
            routers = []
            if served.api:
                # a log of its own: however long a query takes, delivery does not wait for it
                log = await stack.enter_async_context(open_log(config.outbox.url, clock))
                routers = routers_of(Backend(log, lambda: endpoints, clock, stop, appends))
            http = HttpServer(served, readiness, _gauges(worker, coverage), failures.metrics, routers)
            await http.start()
            stack.push_async_callback(http.stop)
        reports = await stack.enter_async_context(
            StatusReports(outbox, clock, partial(_figures, worker, coverage, readiness))
        )
        drain_s = config.shutdown.grace.total_seconds() - job.grace_s(config)
        dispatcher = await stack.enter_async_context(
            delivering(
                outbox,
                config.endpoints,
                clock,
                grace_s=drain_s,
                concurrency=config.dispatch.concurrency,
                also_ring=appends.ring,
            )
        )

        async def apply(new: Sequence[Endpoint]) -> None:
            await dispatcher.reload(new)
            endpoints[:] = new

        reloading = Reload(source, config, apply, asked=reload)
        retention = outbox.retention(round(config.outbox.retention.total_seconds() * 1000))

        async with asyncio.TaskGroup() as group:
            duties = [
                group.create_task(worker.run(), name="worker"),
                group.create_task(_cover(worker, coverage), name="coverage"),
                group.create_task(close_orphans(outbox, clock, own_jobs=own_jobs), name="orphans"),
                group.create_task(failures.run(), name="failure counts"),
                group.create_task(retention.run(), name="retention"),
                group.create_task(reloading.run(), name="reload"),
                group.create_task(_say_when_ready(worker, reports, config, http), name="ready"),
            ]
            await stop.wait()
            logger.info("stopping: ending streams, then sending what is left")
            await worker.stop()
            for duty in duties:
                duty.cancel()
        await close_orphans_once(outbox, clock, own_jobs=own_jobs)


def _worker(config: Config, access: Access, for_jobs: job.JobConfig, *, worker_id: str) -> Worker:
    return Worker(
        access,
        entry=job.entry,
        on_session_end=job.leave,
        setup=partial(job.prepare, for_jobs),
        rooms=config.capture.rooms,
        grace_s=for_jobs.grace_s,
        agent_name=config.livekit.agent_name,
        worker_id=worker_id,
        load_threshold=config.capture.max_load,
        max_warm_processes=config.capture.max_warm_processes,
        preload_inference=config.capture.vad.provider == "livekit" and config.capture.observe is None,
        visible=config.capture.visible,
        forwards=config.capture.forward_transcripts,
    )


async def _say_when_ready(worker: Worker, reports: StatusReports, config: Config, http: HttpServer | None) -> None:
    """Ready: the log was written and delivery started before this task; LiveKit now knows the worker."""
    await worker.registered.wait()
    await reports.ready()
    names = ", ".join(endpoint.name for endpoint in config.endpoints) or "no endpoint"
    health = f"health at {http.url}/readyz" if http else "no health port"
    took_s = time.time() - psutil.Process().create_time()
    logger.info("Ready in %.1f s: sending to %s; %s", took_s, names, health)


def _figures(worker: Worker, coverage: Coverage, readiness: Readiness) -> Figures:
    return Figures(
        waits_for=tuple(reason for check in readiness.values() if (reason := check())),
        rooms_heard=coverage.report.heard,
        rooms_unheard=len(coverage.report.uncovered),
        cpu_load=worker.load(),
        cpu_limit=worker.load.limit,
        refusing=worker.load.refusing,
    )


async def _cover(worker: Worker, coverage: Coverage) -> None:
    await worker.reached.wait()  # until then the worker reports the problem, once
    await coverage.run()


def _readiness(worker: Worker, coverage: Coverage) -> Readiness:
    return {
        "worker": lambda: None if worker.registered.is_set() else "not registered with the LiveKit server",
        "coverage": lambda: None if _reachable(coverage) else "the LiveKit server does not answer",
        "load": lambda: (
            f"this machine is {worker.load():.0%} busy (limit {worker.load.limit:.0%}): new rooms are refused"
            if worker.load.refusing
            else None
        ),
    }


def _reachable(coverage: Coverage) -> bool:
    report = coverage.report
    return report.looked_at is not None and not report.unreachable


def _gauges(worker: Worker, coverage: Coverage) -> list[Gauge]:
    return [
        Gauge("rooms_heard", "Rooms with an agent of the relay in them.", lambda: coverage.report.heard),
        Gauge("rooms_unheard", "Rooms with people and no agent of the relay.", lambda: len(coverage.report.uncovered)),
        Gauge("worker_registered", "1 while LiveKit can send rooms to this worker.", worker.registered.is_set),
        Gauge("worker_refusing", "1 while new rooms are refused for load.", lambda: worker.load.refusing),
        Gauge("cpu_load_ratio", "Share of this machine's processors in use.", worker.load),
        Gauge("cpu_load_limit_ratio", "Share above which new rooms are refused.", lambda: worker.load.limit),
        Gauge("livekit_reachable", "1 while the LiveKit server answers.", lambda: _reachable(coverage)),
    ]
