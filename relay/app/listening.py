"""What a process has beside the log, as its service sees that: the part that listens, and the checks of ``/readyz``.

Without LiveKit, which takes a hundred megabytes and seconds to load.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from relay.api.backend import LiveKitWebhooks, Playground
from relay.api.health import Readiness
from relay.app.orphans import OwnJobs
from relay.app.status import Figures
from relay.recording.metrics import DETECTORS
from relay.telemetry.job_counts import JobCounts
from relay.telemetry.metrics import Counter, MetricFamily

Problem = Callable[[], str | None]


class ListeningPart(Protocol):
    """A LiveKit worker, and the coverage of rooms."""

    @property
    def grace_s(self) -> float:
        """Seconds that jobs may take to end."""

    @property
    def own_jobs(self) -> OwnJobs: ...

    @property
    def checks(self) -> Mapping[str, Problem]:
        """What is wrong with each part, by its name."""

    @property
    def room_gauges(self) -> Sequence[MetricFamily]: ...

    @property
    def service_gauges(self) -> Sequence[MetricFamily]: ...

    def figures(self, waits_for: Sequence[str], lanes: int) -> Figures:
        """What the process says of itself."""

    def webhooks(self, received: Counter) -> LiveKitWebhooks: ...

    def playground(self) -> Playground: ...

    async def registered(self) -> None:
        """Wait until LiveKit can send rooms."""

    async def run(self) -> None:
        """Accept rooms until stopped."""

    async def stop(self) -> None:
        """Accept no more rooms, and end every job."""

    async def cover(self) -> None:
        """Cover the rooms, until cancelled."""

    async def remove_leftovers(self) -> None:
        """Remove the agents of own jobs that died, where another process covers the rooms, until cancelled."""


class ServiceReadiness:
    """The checks of a service: None for a part that works, else what is wrong and what to do.

    ``log`` and ``dispatcher`` are set by the service, once these parts exist. ``speech-relay status`` shows them too.
    """

    def __init__(self, jobs: JobCounts, listening: ListeningPart | None, *, delivers: bool) -> None:
        self._jobs, self._listening, self._delivers = jobs, listening, delivers
        self.log: Problem = lambda: "the log is not used yet: the relay is starting"
        self.dispatcher: Problem = lambda: "deliveries have not begun: the relay is starting"

    @property
    def checks(self) -> Readiness:
        checks: dict[str, Problem] = {"log": lambda: self.log()}
        if (listening := self._listening) is not None:
            checks |= listening.checks
            checks["detectors"] = lambda: detectors_problem(self._jobs)
        if self._delivers:
            checks["dispatcher"] = lambda: self.dispatcher()
        return checks


def detectors_problem(jobs: JobCounts) -> str | None:
    """Names a detector that is down on every track: what is wrong with one track only is no fault of the relay."""
    heard = round(jobs.level("streams"))
    for detector, name in DETECTORS.items():
        if heard and jobs.level(f"{detector}_down") >= heard:
            tracks = "the only track" if heard == 1 else f"all {heard} tracks"
            return f"{name} is down on {tracks} that the relay hears: its warnings in the log give the reason"
    return None
