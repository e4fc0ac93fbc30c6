"""The part of the relay that listens: its LiveKit worker, and the coverage of rooms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from relay.api.backend import Playground
from relay.app import job
from relay.app.fleet import Fleet
from relay.app.listening import Problem
from relay.app.orphans import OwnJobs
from relay.app.status import Figures
from relay.capture.detectors import Providers
from relay.capture.livekit.access import Access
from relay.capture.livekit.plan import Jobs
from relay.capture.livekit.webhook import LiveKitHints
from relay.capture.worker.coverage import Coverage, matches
from relay.capture.worker.worker import Worker
from relay.clock import Clock
from relay.config.models import Config
from relay.outbox.log.processes import Role
from relay.telemetry.metrics import Counter, Gauge, MetricFamily


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


def new_worker(config: Config, *, process: str, variables: Mapping[str, str], counts: str, traced: bool) -> Worker:
    """``variables``, ``counts`` and ``traced``: see :class:`relay.app.job.JobConfig`."""
    access = Access.of(config.livekit)
    for_jobs = job.JobConfig.of(config, access, run=process, variables=variables, counts=counts, traced=traced)
    return Worker(
        access,
        entry=job.entry,
        on_session_end=job.leave,
        setup=partial(job.prepare, for_jobs),
        rooms=config.capture.rooms,
        grace_s=for_jobs.grace_s,
        agent_name=config.livekit.agent_name,
        worker_id=process,
        load_threshold=config.capture.max_load,
        max_warm_processes=config.capture.max_warm_processes,
        preload_inference=config.capture.vad.provider == "livekit" and config.capture.observe is None,
        visible=config.capture.visible,
        forwards=config.capture.forward_transcripts,
    )


@dataclass(frozen=True, slots=True)
class Capturing:
    """See :class:`relay.app.listening.ListeningPart`."""

    access: Access
    worker: Worker
    coverage: Coverage
    own_jobs: OwnJobs
    rooms: Sequence[str]
    """``capture.rooms``."""
    grace_s: float
    role: Role

    @classmethod
    def of(
        cls,
        config: Config,
        worker: Worker,
        clock: Clock,
        *,
        process: str,
        fleet: Fleet,
        role: Role,
    ) -> "Capturing":
        """``fleet``: the other processes."""
        access = Access.of(config.livekit)
        coverage = Coverage(
            access,
            agent_name=config.livekit.agent_name,
            rooms=config.capture.rooms,
            jobs=partial(_jobs, worker, fleet),
            clock=clock,
            on_back=worker.connect_now,
            every_s=config.capture.poll_interval.total_seconds(),
        )
        own_jobs = OwnJobs(process, worker.kill_job, fleet.is_here, fleet.is_lost)
        return cls(access, worker, coverage, own_jobs, config.capture.rooms, job.grace_s(config), role)

    @property
    def checks(self) -> Mapping[str, Problem]:
        return {
            "worker": self._registration_problem,
            "coverage": self._server_problem,
            "load": self._load_problem,
        }

    @property
    def room_gauges(self) -> Sequence[MetricFamily]:
        coverage = self.coverage
        return (
            Gauge("rooms_heard", "Rooms with an agent of the relay in them.", lambda: coverage.report.heard),
            Gauge(
                "rooms_unheard", "Rooms with people and no agent of the relay.", lambda: len(coverage.report.uncovered)
            ),
        )

    @property
    def service_gauges(self) -> Sequence[MetricFamily]:
        worker = self.worker
        return (
            Gauge(
                "worker_registered",
                "1 while LiveKit can send rooms to this worker.",
                lambda: worker.registered.is_set(),
            ),
            Gauge("livekit_reachable", "1 while the LiveKit server answers.", lambda: self.reaches_livekit),
            Gauge("worker_refusing", "1 while new rooms are refused for load.", lambda: worker.load.refusing),
            Gauge("cpu_load_ratio", "Share of this machine's processors in use.", lambda: worker.load()),
            Gauge("cpu_load_limit_ratio", "Share above which new rooms are refused.", lambda: worker.load.limit),
        )

    def figures(self, waits_for: Sequence[str], lanes: int) -> Figures:
        load, covered, jobs = self.worker.load, self.coverage.report, self.worker.jobs()
        return Figures(
            tuple(waits_for),
            rooms_heard=covered.heard,
            rooms_unheard=len(covered.uncovered),
            jobs=len(jobs.rooms),
            lanes=lanes,
            cpu_load=load(),
            cpu_limit=load.limit,
            refusing=load.refusing,
        )

    def webhooks(self, received: Counter) -> LiveKitHints:
        return LiveKitHints(self.access, self.coverage.look_now, received)

    def playground(self) -> Playground:
        return Playground(self.access.url, self.access.guest_token, partial(matches, self.rooms))

    async def registered(self) -> None:
        await self.worker.registered.wait()

    async def run(self) -> None:
        await self.worker.run()

    async def stop(self) -> None:
        await self.worker.stop()

    async def cover(self) -> None:
        await self.worker.reached.wait()  # until then the worker reports the problem, once
        await self.coverage.run()

    async def remove_leftovers(self) -> None:
        await self.worker.reached.wait()
        await self.coverage.remove_leftovers(self.worker.agents)

    @property
    def reaches_livekit(self) -> bool:
        """Whether the LiveKit server answers: the coverage, or the worker where another process has the coverage."""
        report = self.coverage.report
        return not report.unreachable and (report.looked_at is not None or self.worker.registered.is_set())

    def _registration_problem(self) -> str | None:
        if self.worker.registered.is_set():
            return None
        return "not registered with the LiveKit server: check that it runs, and livekit.url, api_key and api_secret"

    def _server_problem(self) -> str | None:
        if self.reaches_livekit:
            return None
        return "the LiveKit server does not answer: check that it runs, and that livekit.url reaches it from here"

    def _load_problem(self) -> str | None:
        load = self.worker.load
        if not load.refusing:
            return None
        return (
            f"this machine is {load():.0%} busy (limit {load.limit:.0%}): new rooms are refused; add a "
            f"{'worker' if self.role == 'worker' else 'relay'}, or raise capture.max_load"
        )


def _jobs(worker: Worker, fleet: Fleet) -> Jobs:
    own = worker.jobs()
    return replace(
        own,
        taking=own.taking or fleet.others_take_rooms(),
        lost_workers=fleet.lost_workers,
        others_hang=fleet.workers_hang(),
    )
