"""The part of the relay that listens: its LiveKit worker, and the coverage of rooms."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from relay.app import job
from relay.app.fleet import Fleet
from relay.app.orphans import OwnJobs
from relay.capture.detectors import Providers
from relay.capture.livekit.access import Access
from relay.capture.livekit.plan import Jobs
from relay.capture.worker.coverage import Coverage
from relay.capture.worker.worker import Worker
from relay.clock import Clock
from relay.config.models import Config


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


@dataclass(frozen=True, slots=True)
class Capturing:
    """The parts, of the process with this id."""

    access: Access
    worker: Worker
    coverage: Coverage
    own_jobs: OwnJobs

    @classmethod
    def of(
        cls,
        config: Config,
        clock: Clock,
        *,
        process: str,
        variables: Mapping[str, str],
        counts: str,
        traced: bool,
        fleet: Fleet,
    ) -> "Capturing":
        """``variables``, ``counts`` and ``traced``: see :class:`relay.app.job.JobConfig`. ``fleet``: the other
        processes."""
        access = Access.of(config.livekit)
        for_jobs = job.JobConfig.of(config, access, run=process, variables=variables, counts=counts, traced=traced)
        worker = Worker(
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
        coverage = Coverage(
            access,
            agent_name=config.livekit.agent_name,
            rooms=config.capture.rooms,
            jobs=partial(_jobs, worker, fleet),
            clock=clock,
            on_back=worker.connect_now,
            every_s=config.capture.poll_interval.total_seconds(),
        )
        return cls(access, worker, coverage, OwnJobs(process, worker.kill_job, fleet.is_here, fleet.is_lost))

    async def cover(self) -> None:
        """Cover the rooms, until cancelled."""
        await self.worker.reached.wait()  # until then the worker reports the problem, once
        await self.coverage.run()

    async def remove_leftovers(self) -> None:
        """Remove the agents of own jobs that died, where another process covers the rooms, until cancelled."""
        await self.worker.reached.wait()
        await self.coverage.remove_leftovers(self.worker.agents)

    @property
    def reaches_livekit(self) -> bool:
        """Whether the LiveKit server answers: the coverage, or the worker where another process has the coverage."""
        report = self.coverage.report
        return not report.unreachable and (report.looked_at is not None or self.worker.registered.is_set())


def _jobs(worker: Worker, fleet: Fleet) -> Jobs:
    own = worker.jobs()
    return replace(own, taking=own.taking or fleet.others_take_rooms(), lost_workers=fleet.lost_workers)
