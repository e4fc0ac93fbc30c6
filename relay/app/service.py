"""``speech-relay run``, ``worker`` and ``dispatch``: connects the parts of a process, and stops them in order."""

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from relay import __version__
from relay.api.appends import Appends
from relay.api.backend import Backend
from relay.api.routes.all import routers_of
from relay.api.server import HttpServer
from relay.app.delivery import delivering
from relay.app.fleet import Fleet, on_duty
from relay.app.listening import ListeningPart, ServiceReadiness
from relay.app.metrics import Backlogs, ServiceMetrics
from relay.app.orphans import OwnJobs, close_orphans, close_orphans_once
from relay.app.reload import Reload, ReloadSource, RuntimeEndpointSync
from relay.app.status import Figures, StatusReports, process_age_s
from relay.app.stopping import LogWaits, StoppedAtStart
from relay.clock import Clock, SystemClock
from relay.config.api import listening
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.dispatch.dispatcher import Dispatcher
from relay.errors import OutboxError, RelayError, first_of
from relay.outbox.log.processes import Role
from relay.outbox.opening import SOLE, log_file
from relay.outbox.operator.access import open_log
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from relay.telemetry.metrics import Metrics
from relay.telemetry.traces import Traces, enabled

if TYPE_CHECKING:
    from relay.capture.worker.worker import Worker

LAST_WRITES_S = 2.0
"""For what is written at the end beside deliveries: others do it where it fails."""
LOG_ANSWERS_WITHIN_S = 3.0
"""After the grace. A log that has not answered by then is not waited for."""

logger = logging.getLogger(__name__)

_Duty = Callable[[], Coroutine[Any, Any, None]]
"""What a process does until it is stopped."""


async def run_service(
    config: Config,
    stop: asyncio.Event,
    source: ReloadSource,
    reload: asyncio.Event,
    variables: Mapping[str, str],
    *,
    role: Role,
) -> None:
    """Listen, deliver or do both until ``stop`` is set, then end streams, drain and return within ``shutdown.grace``.

    The endpoints follow ``source`` when its files change, and whenever ``reload`` is set. ``variables`` are the
    environment variables that the provider reads: job processes get no others.

    Raises ``RelayError`` for errors that prevent the process from starting, or from continuing.
    """
    try:
        async with AsyncExitStack() as stack:
            service = _Service(config, role, stop, stack)
            with suppress(StoppedAtStart):
                await service.run(source, reload, variables)
    except* RelayError as errors:
        error = first_of(errors)
        if not (stop.is_set() and isinstance(error, OutboxError)):
            raise error from None
        logger.warning("the log is away at the end: %s", error)  # what is not written is done again by the next one


class _Service:
    """One process, whose parts end with ``stack``."""

    def __init__(self, config: Config, role: Role, stop: asyncio.Event, stack: AsyncExitStack) -> None:
        self._config, self._role, self._stop, self._stack = config, role, stop, stack
        self._clock: Clock = SystemClock()
        self._process = uuid.uuid4().hex
        self._metrics = ServiceMetrics()
        self._endpoints: Sequence[Endpoint] = config.endpoints
        self._appends = Appends(stop)
        self._log_waits = LogWaits(stop)
        self._is_sole = self._delivers and log_file(config.outbox.url) is not None
        """Whether no other process may deliver from the log."""
        self._dispatcher: Dispatcher | None = None

    async def run(self, source: ReloadSource, reload: asyncio.Event, variables: Mapping[str, str]) -> None:
        """Start the parts in this order, do their duties until the stop, and end them in the reverse order."""
        await self._stack.enter_async_context(self._metrics.jobs)
        worker = self._begin_worker(variables) if self._role != "dispatch" else None
        outbox = await self._open_outbox()
        made = await self._learn_endpoints(outbox)
        traces = await self._traces()
        fleet = Fleet(outbox, self._clock, self._process, sole=self._is_sole)
        await self._log_waits.before_stop(fleet.look())
        capturing = self._listen(worker, fleet) if worker is not None else None
        readiness = ServiceReadiness(self._metrics.jobs, capturing, delivers=self._delivers)
        http = await self._serve(capturing, made, readiness, fleet)
        reports = await self._report(outbox, capturing, readiness)
        if self._delivers:
            await self._deliver(outbox, capturing, made, readiness, fleet, traces)

        apply = partial(self._replace_endpoints, outbox, made)
        reloading = Reload(source, self._config, apply, asked=reload, reloads=self._metrics.reloads)
        own_jobs = capturing.own_jobs if capturing else OwnJobs(self._process, _kill_none, fleet.is_here, fleet.is_lost)
        on = partial(on_duty, outbox=outbox, process=self._process, ended=fleet.ended)
        duties: dict[str, _Duty] = {
            "orphans": partial(close_orphans, outbox, self._clock, own_jobs=own_jobs),
            "reload": reloading.run,
            "endpoints made over the API": made.run,
            "fleet": fleet.run,
            "ready": partial(self._say_when_ready, capturing, made, reports, http),
        }
        if capturing is not None:
            duties["worker"] = capturing.run
            duties["coverage"] = partial(on, "coverage", capturing.cover)
            duties["leftovers"] = capturing.remove_leftovers
        if self._delivers:
            retention = outbox.retention(round(self._config.outbox.retention.total_seconds() * 1000))
            duties["retention"] = partial(on, "retention", retention.run)
        await self._work(duties, capturing)
        await self._write_last(outbox, own_jobs)

    @property
    def _delivers(self) -> bool:
        return self._role != "worker"

    def _begin_worker(self, variables: Mapping[str, str]) -> "Worker":
        """Before the log is open: the first job process takes as long to start as the rest of this one."""
        # not above: it loads LiveKit, which a dispatcher does without
        from relay.app.capturing import new_worker

        counts, traced = self._metrics.jobs.path, enabled(os.environ)
        worker = new_worker(self._config, process=self._process, variables=variables, counts=counts, traced=traced)
        worker.begin()
        self._stack.push_async_callback(worker.abandon)
        return worker

    async def _open_outbox(self) -> Outbox:
        """A log in a file has one dispatcher, which reclaims its lanes after a restart by its name."""
        name, sole = SOLE if self._is_sole else self._process, self._is_sole
        log, metrics = self._config.outbox, self._metrics.log
        outbox = await self._log_waits.before_stop(
            Outbox.open(log.url, name=name, clock=self._clock, sole=sole, metrics=metrics, spill=log.spill)
        )
        self._log_waits.add(outbox.break_off)
        grace_s = self._config.shutdown.grace.total_seconds()
        ending = asyncio.create_task(self._log_waits.end_in_time(grace_s + LOG_ANSWERS_WITHIN_S), name="end")
        self._stack.callback(ending.cancel)
        self._stack.push_async_callback(outbox.aclose)
        self._clock = outbox.clock
        return outbox

    async def _learn_endpoints(self, outbox: Outbox) -> RuntimeEndpointSync:
        """Before the first stream: one that is opened before its endpoints are known has no lanes."""
        await self._log_waits.before_stop(self._sync_endpoints(outbox, self._config.endpoints))
        made = RuntimeEndpointSync(outbox.api_endpoints, self._config)
        await self._log_waits.before_stop(made.start())
        if self._delivers and not self._config.endpoints and not made.directory.endpoints:
            logger.warning(
                "There are no endpoints: events are kept in the log, and an endpoint that is added later does not get "
                "those from before"
            )
        return made

    async def _sync_endpoints(self, outbox: Outbox, endpoints: Sequence[Endpoint]) -> None:
        """Which endpoints are configured is up to those that deliver: a worker's file may be older, or name none."""
        names = [endpoint.name for endpoint in endpoints]
        await outbox.lanes.sync_endpoints(names, only_add=not self._delivers)

    async def _replace_endpoints(
        self, outbox: Outbox, made: RuntimeEndpointSync, endpoints: Sequence[Endpoint]
    ) -> None:
        """The configuration was read again."""
        if self._dispatcher is None:
            await self._sync_endpoints(outbox, endpoints)
        else:
            await self._dispatcher.reload(endpoints)
        self._endpoints = endpoints
        made.give_way(endpoints)

    async def _traces(self) -> Traces | None:
        """OpenTelemetry, where its standard variables turn it on."""
        if not enabled(os.environ):
            return None
        traces = Traces(__version__)
        self._stack.push_async_callback(asyncio.to_thread, traces.close)
        self._metrics.jobs.on_appended = traces.appended

        def appended(records: Sequence[Record]) -> None:
            now = self._clock.now_ms()
            traces.appended([(record.id, record.type, record.emitted_at, now) for record in records])

        self._metrics.log.on_append = appended
        return traces

    def _listen(self, worker: "Worker", fleet: Fleet) -> ListeningPart:
        from relay.app.capturing import Capturing  # as above

        return Capturing.of(self._config, worker, self._clock, process=self._process, fleet=fleet, role=self._role)

    async def _serve(
        self, capturing: ListeningPart | None, made: RuntimeEndpointSync, readiness: ServiceReadiness, fleet: Fleet
    ) -> HttpServer | None:
        """Answer HTTP, if the configuration has an address."""
        config, stack = self._config, self._stack
        served = listening(config.api, config.admin)
        if served is None:
            return None
        # a log of its own: however long a query takes, delivery does not wait for it
        log = await self._log_waits.before_stop(stack.enter_async_context(open_log(config.outbox.url, self._clock)))
        self._log_waits.add(log.break_off)
        backlogs = Backlogs(log, lambda: self._endpoints, self._metrics.delivery, self._clock)
        stack.push_async_callback(backlogs.aclose)
        families = self._metrics.families(capturing, backlogs, config.outbox.url, fleet).values()
        page = Metrics(chain.from_iterable(families), refresh=backlogs.refresh)
        hints = guests = None
        if capturing is not None:
            hints = capturing.webhooks(self._metrics.webhooks) if served.livekit_webhook else None
            guests = capturing.playground() if served.playground else None
        backend = Backend(
            log,
            lambda: self._endpoints,
            self._clock,
            self._stop,
            # the doorbell is the dispatcher's: without one, the log is polled
            self._appends if self._delivers else None,
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
        return http

    async def _report(
        self, outbox: Outbox, capturing: ListeningPart | None, readiness: ServiceReadiness
    ) -> StatusReports:
        """Write from now on into the log what this process does."""
        figures = partial(self._figures, capturing, readiness)
        reports = StatusReports(outbox, self._clock, figures, process=self._process, role=self._role)
        readiness.log = reports.log_problem
        return await self._stack.enter_async_context(reports)

    def _figures(self, capturing: ListeningPart | None, readiness: ServiceReadiness) -> Figures:
        waits_for = [reason for check in readiness.checks.values() if (reason := check())]
        if self._stop.is_set():
            waits_for.insert(0, "it is stopping")
        lanes = self._dispatcher.lanes_held if self._dispatcher else 0
        found = capturing.figures(waits_for, lanes) if capturing else Figures(tuple(waits_for), lanes=lanes)
        names = tuple(sorted(endpoint.name for endpoint in self._endpoints)) if self._delivers else ()
        return replace(found, endpoints=names)

    async def _deliver(
        self,
        outbox: Outbox,
        capturing: ListeningPart | None,
        made: RuntimeEndpointSync,
        readiness: ServiceReadiness,
        fleet: Fleet,
        traces: Traces | None,
    ) -> None:
        drain_s = self._config.shutdown.grace.total_seconds()
        if capturing is not None:
            drain_s -= capturing.grace_s
        self._dispatcher = await self._stack.enter_async_context(
            delivering(
                outbox,
                self._config.endpoints,
                self._clock,
                grace_s=drain_s,
                concurrency=self._config.dispatch.concurrency,
                also_ring=self._appends.ring,
                metrics=self._metrics.delivery,
                traces=traces,
                fleet=None if self._is_sole else fleet,
            )
        )
        readiness.dispatcher = self._dispatcher.problem
        made.send_with(self._dispatcher)

    async def _say_when_ready(
        self,
        capturing: ListeningPart | None,
        made: RuntimeEndpointSync,
        reports: StatusReports,
        http: HttpServer | None,
    ) -> None:
        """Ready: the log was written and delivery started before this task; LiveKit now knows the worker."""
        if capturing is not None:
            await capturing.registered()
        await reports.ready()
        names = [endpoint.name for endpoint in self._endpoints]
        if by_api := len(made.directory.endpoints.keys() - names):
            names.append(f"{by_api} made over the API")
        does = f"sending to {', '.join(names) or 'no endpoint'}" if self._delivers else "listening"
        health = f"health at {http.url}/readyz" if http else "no health port"
        logger.info("Ready in %.1f s: %s; %s", process_age_s(), does, health)

    async def _work(self, duties: Mapping[str, _Duty], capturing: ListeningPart | None) -> None:
        """Do the duties until the stop; then end the streams first."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(duty(), name=name) for name, duty in duties.items()]
            await self._stop.wait()
            logger.info("stopping: %s", _LAST_STEPS[self._role])
            if capturing is not None:
                await capturing.stop()
            for task in tasks:
                task.cancel()

    async def _write_last(self, outbox: Outbox, own_jobs: OwnJobs) -> None:
        """End what is left of this process's streams, and leave its duties to others."""
        try:
            async with asyncio.timeout(LAST_WRITES_S):
                await close_orphans_once(outbox, self._clock, own_jobs=own_jobs)
                await outbox.leave_duties(self._process)
        except (OutboxError, TimeoutError) as error:  # others do it, once leases end
            logger.warning("the log is away at the end: %s", str(error) or "it does not answer")


_LAST_STEPS: Mapping[Role, str] = {
    "run": "ending streams, then sending what is left",
    "worker": "ending streams",
    "dispatch": "sending what is left",
}


def _kill_none(_: int) -> bool:
    """A process that does not listen has no jobs."""
    return False
