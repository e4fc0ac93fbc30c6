"""The list in docs/reference/metrics.md, from the families that the service registers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from relay.app.capturing import Capturing
from relay.app.fleet import Fleet
from relay.app.metrics import Backlogs, ServiceMetrics
from relay.clock import SystemClock
from relay.telemetry.metrics import Histogram, MetricFamily

PAGE = Path(__file__).parent / "reference" / "metrics.md"


def families() -> Mapping[str, Sequence[MetricFamily]]:
    """Every family of the service, by subject."""
    metrics = ServiceMetrics()
    backlogs = Backlogs(None, tuple, metrics.delivery, SystemClock())
    # the gauges are described, and not read: nothing is behind them
    nobody = Capturing(None, None, None, None, (), 0, "run")  # type: ignore[arg-type]
    fleet = Fleet(None, SystemClock(), "")  # type: ignore[arg-type]
    return metrics.families(nobody, backlogs, "sqlite:///relay.db", fleet)


def metrics_page() -> Iterator[str]:
    """What is written by hand up to the heading of the list, then the list."""
    by_hand, heading, _ = PAGE.read_text().partition("\n## Every metric\n")
    yield by_hand + heading.rstrip("\n")
    for subject, members in families().items():
        yield f"\n### {subject}\n"
        for family in members:
            labels = f"{{{','.join(family.labels)}}}" if family.labels else ""
            yield f"- `{family.name}{labels}` ({_kind(family)}): {family.help}"


def _kind(family: MetricFamily) -> str:
    if isinstance(family, Histogram):
        return f"histogram of seconds, {family.bounds[0]:g} to {family.bounds[-1]:g}"
    return family.kind
