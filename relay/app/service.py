"""``speech-relay run``: connects all parts, and stops them in order."""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain

import psutil

from relay import __version__
from relay.api.appends import Appends
from relay.api.backend import Backend, Playground
from relay.api.health import Readiness
from relay.api.routes.all import routers_of
from relay.api.server import HttpServer
from relay.app import job
from relay.app.delivery import delivering
from relay.app.metrics import Backlogs, ServiceMetrics
from relay.app.orphans import OwnJobs, close_orphans, close_orphans_once
from relay.app.readiness import ServiceReadiness
from relay.app.reload import Reload, ReloadSource
from relay.app.runtime_endpoints import RuntimeEndpointSync
from relay.app.status import Figures, StatusReports
from relay.capture.detectors import Providers
from relay.capture.livekit.access import Access
from relay.capture.livekit.webhook import LiveKitHints
from relay.capture.worker.coverage import Coverage, matches
from relay.capture.worker.worker import Worker
from relay.clock import Clock, SystemClock
from relay.config.api import listening
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.errors import RelayError, first_of
from relay.outbox.operator.access import open_log
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from relay.telemetry.metrics import Metrics
from relay.telemetry.traces import Traces, enabled

logger = logging.getLogger(__name__)


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
    clock, access, metrics = SystemClock(), Access.of(config.livekit), ServiceMetrics()
    async with AsyncExitStack() as stack:
        outbox = await Outbox.open(config.outbox.url, name="relay", clock=clock, sole=True, metrics=metrics.log)
        stack.push_async_callback(outbox.aclose)
        # Before the first stream: one that is opened before its endpoints are known has no lanes.
        await outbox.lanes.sync_endpoints([endpoint.name for endpoint in config.endpoints])
        made = RuntimeEndpointSync(outbox.api_endpoints, config)
        await made.start()
        run = uuid.uuid4().hex
        await stack.enter_async_context(metrics.jobs)
        traces = await _traces(stack, metrics, clock)
        for_jobs = job.JobConfig.of(
            config, access, run=run, variables=variables, counts=metrics.jobs.path, traced=traces is not None
        )
        worker = _worker(config, access, for_jobs, worker_id=await outbox.identity())
        own_jobs = OwnJobs(run, kill=worker.kill_job)
        coverage = Coverage(
            access,
            agent_name=config.livekit.agent_name,
            rooms=config.capture.rooms,
            jobs=worker.jobs,
            clock=clock,
            on_back=worker.connect_now,
            every_s=config.capture.poll_interval.total_seconds(),
        )
        endpoints = list(config.endpoints)
        readiness, appends = ServiceReadiness(worker, coverage, metrics.jobs), Appends(stop)
        http = None
        if served := listening(config.api, config.admin):
            # a log of its own: however long a query takes, delivery does not wait for it
            log = await stack.enter_async_context(open_log(config.outbox.url, clock))
            backlogs = Backlogs(log, lambda: endpoints, metrics.delivery, clock)
            stack.push_async_callback(backlogs.aclose)
            families = metrics.families(worker, coverage, backlogs, config.outbox.url).values()
            page = Metrics(chain.from_iterable(families), refresh=backlogs.refresh)
            hints = LiveKitHints(access, coverage.look_now) if served.livekit_webhook else None
            hears = partial(matches, config.capture.rooms)
            guests = Playground(access.url, access.guest_token, hears) if served.playground else None
            backend = Backend(
                log,
                lambda: endpoints,
                clock,
                stop,
                appends,
                playground=guests,
                livekit=hints,
                directory=made.directory,
                tenants=served.tenants,
                most=served.runtime_endpoints.max,
                most_of_tenant=served.runtime_endpoints.max_per_tenant,
            )
            routers = routers_of(backend) if served.api else []
            http = HttpServer(served, readiness.checks, page, routers)
            await http.start()
            stack.push_async_callback(http.stop)
        reports = StatusReports(outbox, clock, partial(_figures, worker, coverage, readiness.checks))
        readiness.log = reports.log_problem
        await stack.enter_async_context(reports)
        drain_s = config.shutdown.grace.total_seconds() - job.grace_s(config)
        dispatcher = await stack.enter_async_context(
            delivering(
                outbox,
                config.endpoints,
                clock,
                grace_s=drain_s,
                concurrency=config.dispatch.concurrency,
                also_ring=appends.ring,
                metrics=metrics.delivery,
                traces=traces,
            )
        )

        readiness.dispatcher = dispatcher.problem
        made.send_with(dispatcher)

        async def apply(new: Sequence[Endpoint]) -> None:
            await dispatcher.reload(new)
            endpoints[:] = new
            made.give_way(new)

        reloading = Reload(source, config, apply, asked=reload, reloads=metrics.reloads)
        retention = outbox.retention(round(config.outbox.retention.total_seconds() * 1000))

        async with asyncio.TaskGroup() as group:
            duties = [
                group.create_task(worker.run(), name="worker"),
                group.create_task(_cover(worker, coverage), name="coverage"),
                group.create_task(close_orphans(outbox, clock, own_jobs=own_jobs), name="orphans"),
                group.create_task(retention.run(), name="retention"),
                group.create_task(reloading.run(), name="reload"),
                group.create_task(made.run(), name="endpoints made over the API"),
                group.create_task(_say_when_ready(worker, reports, config, http), name="ready"),
            ]
            await stop.wait()
            logger.info("stopping: ending streams, then sending what is left")
            await worker.stop()
            for duty in duties:
                duty.cancel()
        await close_orphans_once(outbox, clock, own_jobs=own_jobs)


async def _traces(stack: AsyncExitStack, metrics: ServiceMetrics, clock: Clock) -> Traces | None:
    """OpenTelemetry, where its standard variables turn it on."""
    if not enabled(os.environ):
        return None
    traces = Traces(__version__)
    stack.push_async_callback(asyncio.to_thread, traces.close)
    metrics.jobs.on_appended = traces.appended

    def appended(records: Sequence[Record]) -> None:
        now = clock.now_ms()
        traces.appended([(record.id, record.type, record.emitted_at, now) for record in records])

    metrics.log.on_append = appended
    return traces


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
