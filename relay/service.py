"""``speech-relay run``: wires everything together, and takes it down in order."""

import asyncio
import logging
from functools import partial

from relay import job
from relay.admin.server import Admin, Readiness
from relay.capture.livekit.access import Access
from relay.capture.livekit.coverage import Coverage
from relay.capture.livekit.worker import AGENT_NAME, Worker
from relay.capture.providers.detectors import Providers
from relay.clock import Clock, SystemClock
from relay.config.models import Config
from relay.delivery import delivering
from relay.errors import RelayError
from relay.orphans import close_orphans, close_orphans_once
from relay.outbox.outbox import Outbox

logger = logging.getLogger(__name__)

JOBS_SHARE = 0.6
"""Of ``shutdown.grace``, what jobs get to end their streams. The rest is for sending what they said last."""


async def run_service(config: Config, stop: asyncio.Event) -> None:
    """Listen and deliver until ``stop`` is set, then end streams, drain and return within ``shutdown.grace``.

    Raises ``RelayError`` for what keeps the service from starting, or from going on.
    """
    try:
        await Service(config, SystemClock()).run(stop)
    except* RelayError as errors:
        raise _first(errors) from None


class Service:
    """One process of the relay: worker, coverage, outbox, dispatcher and admin."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._grace_s = config.shutdown.grace.total_seconds()
        access = Access.of(config.livekit)
        self._worker = Worker(
            access,
            entry=job.entry,
            on_session_end=job.leave,
            setup=partial(job.prepare, config),
            rooms=config.capture.rooms,
            grace_s=self._grace_s * JOBS_SHARE,
            load_threshold=config.capture.max_load,
            preload_inference=config.capture.vad.provider == "livekit",
        )
        self._coverage = Coverage(
            access,
            agent_name=AGENT_NAME,
            rooms=config.capture.rooms,
            jobs=self._worker.jobs,
            clock=clock,
        )

    async def run(self, stop: asyncio.Event) -> None:
        config, clock = self._config, self._clock
        await _try_providers(config)
        outbox = await Outbox.open(config.outbox.url, name="relay", clock=clock)
        admin = Admin(config.admin.listen, self._readiness()) if config.admin.listen else None
        try:
            if admin is not None:
                await admin.start()
            drain_s = self._grace_s * (1 - JOBS_SHARE)
            async with delivering(outbox, config.endpoints, clock, grace_s=drain_s), asyncio.TaskGroup() as group:
                duties = [
                    group.create_task(self._worker.run(), name="worker"),
                    group.create_task(self._coverage.run(), name="coverage"),
                    group.create_task(close_orphans(outbox, clock), name="orphans"),
                ]
                await stop.wait()
                logger.info("stopping: ending streams, then sending what is left, within %g s", self._grace_s)
                await self._worker.stop()
                for duty in duties:
                    duty.cancel()
                await close_orphans_once(outbox, clock)
        finally:
            if admin is not None:
                await admin.stop()
            await outbox.aclose()

    def _readiness(self) -> Readiness:
        return {
            "worker": lambda: None if self._worker.registered.is_set() else "not registered with the LiveKit server",
            "coverage": lambda: "the LiveKit server does not answer" if self._coverage.report.unreachable else None,
        }


async def _try_providers(config: Config) -> None:
    """Load what the jobs will load, so that a missing plugin or key stops the start and not each call."""
    providers = Providers(config.capture.vad, config.capture.stt)
    try:
        providers.detectors()
    finally:
        await providers.aclose()


def _first(errors: BaseExceptionGroup[RelayError]) -> RelayError:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, RelayError)
    return found
