"""What a process that listens has beside the log, as the rest of it sees that: without LiveKit, which takes a hundred
megabytes and seconds to load."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from relay.api.backend import LiveKitWebhooks, Playground
from relay.app.orphans import OwnJobs
from relay.app.status import Figures
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
