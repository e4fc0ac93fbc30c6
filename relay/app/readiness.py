"""What ``/readyz`` and ``speech-relay status`` say of each part: None for one that works, else what is wrong and what
to do."""

from relay.api.health import Readiness
from relay.app.listening import ListeningPart, Problem
from relay.recording.metrics import DETECTORS
from relay.telemetry.job_counts import JobCounts


class ServiceReadiness:
    """The checks of a service. ``log`` and ``dispatcher`` are set by the service, once these parts exist."""

    def __init__(self, jobs: JobCounts, listening: ListeningPart | None = None, *, delivers: bool = True) -> None:
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
