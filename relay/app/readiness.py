"""What ``/readyz`` and ``speech-relay status`` say of each part: None for one that works, else what is wrong and what
to do."""

from collections.abc import Callable

from relay.api.health import Readiness
from relay.app.capturing import Capturing
from relay.capture.worker.load import CpuLoad
from relay.capture.worker.worker import Worker
from relay.recording.metrics import DETECTORS
from relay.telemetry.job_counts import JobCounts

Problem = Callable[[], str | None]


class ServiceReadiness:
    """The checks of a service. ``log`` and ``dispatcher`` are set by the service, once these parts exist."""

    def __init__(self, jobs: JobCounts, capturing: Capturing | None = None, *, delivers: bool = True) -> None:
        self._jobs, self._capturing, self._delivers = jobs, capturing, delivers
        self.log: Problem = lambda: "the log is not used yet: the relay is starting"
        self.dispatcher: Problem = lambda: "deliveries have not begun: the relay is starting"

    @property
    def checks(self) -> Readiness:
        checks: dict[str, Problem] = {"log": lambda: self.log()}
        if (capturing := self._capturing) is not None:
            checks["worker"] = lambda: registration_problem(capturing.worker)
            checks["coverage"] = lambda: server_problem(capturing)
            checks["load"] = lambda: load_problem(capturing.worker.load)
            checks["detectors"] = lambda: detectors_problem(self._jobs)
        if self._delivers:
            checks["dispatcher"] = lambda: self.dispatcher()
        return checks


def registration_problem(worker: Worker) -> str | None:
    """Whether LiveKit sends rooms to this worker."""
    if worker.registered.is_set():
        return None
    return "not registered with the LiveKit server: check that it runs, and livekit.url, api_key and api_secret"


def server_problem(capturing: Capturing) -> str | None:
    """Whether the LiveKit server answers."""
    if capturing.reaches_livekit:
        return None
    return "the LiveKit server does not answer: check that it runs, and that livekit.url reaches it from here"


def load_problem(load: CpuLoad) -> str | None:
    """Whether new rooms are accepted."""
    if not load.refusing:
        return None
    return (
        f"this machine is {load():.0%} busy (limit {load.limit:.0%}): new rooms are refused; add a relay, or raise"
        " capture.max_load"
    )


def detectors_problem(jobs: JobCounts) -> str | None:
    """Names a detector that is down on every track: what is wrong with one track only is no fault of the relay."""
    heard = round(jobs.level("streams"))
    for detector, name in DETECTORS.items():
        if heard and jobs.level(f"{detector}_down") >= heard:
            tracks = "the only track" if heard == 1 else f"all {heard} tracks"
            return f"{name} is down on {tracks} that the relay hears: its warnings in the log give the reason"
    return None
