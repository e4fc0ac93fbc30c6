"""Counters, histograms and gauges, and their page in Prometheus's text format.

``prometheus_client`` renders the page. The counting is done here: its counters and histograms take a lock for each
value, and those of a job process could not be added to those of the service.

Each series is counted by one thread. Another thread may read it at the same time.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

PREFIX = "speech_relay_"

Labels = tuple[str, ...]
"""The values of a family's labels, in their order."""

Changes = list[tuple[Labels, Any]]
"""What was counted by series, as values of JSON."""


class MetricFamily(Protocol):
    """Series with one name: a collector of ``prometheus_client``. ``labels`` are the labels' names."""

    kind: str
    name: str
    help: str
    labels: Labels

    def collect(self) -> Iterable[Metric]: ...


class Counter:
    """Counts by the values of the labels. ``name`` is without the prefix and without ``_total``.

    ``start`` are the series that are shown, as 0, before the first count: an increase from nothing is none.
    """

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Labels = (), start: Iterable[Labels] = ()) -> None:
        self.name, self.help, self.labels = f"{PREFIX}{name}_total", text, labels
        self._values: dict[Labels, float] = dict.fromkeys(start if labels else [()], 0)
        self._taken: dict[Labels, float] = {}

    def show(self, labels: Labels) -> None:
        """Show this series from now on: an increase from nothing is none."""
        self._values.setdefault(labels, 0)

    def inc(self, labels: Labels = (), by: float = 1) -> None:
        self._values[labels] = self._values.get(labels, 0) + by

    def value(self, **labels: str) -> float:
        """The sum of the series with these values of labels."""
        wanted = [(self.labels.index(name), value) for name, value in labels.items()]
        return sum(
            count for values, count in list(self._values.items()) if all(values[n] == value for n, value in wanted)
        )

    def take(self) -> Changes:
        """What was counted, and what is shown, since the last call, for :meth:`add` of another process."""
        values, before = dict(self._values), self._taken
        self._taken = values
        return [
            (labels, value - before.get(labels, 0)) for labels, value in values.items() if value != before.get(labels)
        ]

    def add(self, changes: Changes) -> None:
        """Add what another process has counted."""
        for labels, value in changes:
            self.inc(tuple(labels), value)

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        yield family


class Histogram:
    """Counts seconds by ranges. ``name`` is without the prefix; ``bounds`` are the ranges' upper ends, ascending."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float], labels: Labels = ()) -> None:
        self.name, self.help, self.labels = PREFIX + name, text, labels
        self.bounds = tuple(bounds)
        self._series: dict[Labels, list[float]] = {}
        """By range, one above all bounds, and the sum of all values."""
        self._taken: dict[Labels, list[float]] = {}
        if not labels:
            self._start(())

    def observe(self, seconds: float, labels: Labels = (), times: int = 1) -> None:
        series = self._series.get(labels) or self._start(labels)
        series[bisect_left(self.bounds, seconds)] += times
        series[-1] += seconds * times

    def take(self) -> Changes:
        """As for a :class:`Counter`."""
        values, before = {labels: list(series) for labels, series in list(self._series.items())}, self._taken
        self._taken = values
        nothing = [0.0] * (len(self.bounds) + 2)
        return [
            (labels, [now - then for now, then in zip(series, before.get(labels, nothing), strict=True)])
            for labels, series in values.items()
            if series != before.get(labels, nothing)
        ]

    def add(self, changes: Changes) -> None:
        for labels, more in changes:
            series = self._series.get(tuple(labels)) or self._start(tuple(labels))
            for n, value in enumerate(more):
                series[n] += value

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        for labels, series in list(self._series.items()):
            total, buckets = 0.0, []
            for name, count in zip(names, series[:-1], strict=True):
                total += count
                buckets.append((name, total))
            family.add_metric(labels, buckets, sum_value=series[-1])
        yield family

    def _start(self, labels: Labels) -> list[float]:
        self._series[labels] = series = [0.0] * (len(self.bounds) + 2)
        return series


class Gauge:
    """A value, or values by labels, read at each scrape. ``name`` has its unit, and is without the prefix."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        text: str,
        read: Callable[[], float | Mapping[Labels, float]],
        labels: Labels = (),
    ) -> None:
        self.name, self.help, self.labels, self._read = PREFIX + name, text, labels, read

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        found = self._read()
        for labels, value in ({(): found} if isinstance(found, int | float) else found).items():
            family.add_metric(labels, value)
        yield family


class Metrics:
    """The families of one process. Separate from the process's own registry, which libraries use."""

    def __init__(self, families: Iterable[MetricFamily], refresh: Callable[[], Awaitable[None]] | None = None) -> None:
        """``refresh`` is awaited before each scrape. It must neither raise nor take long."""
        self._families, self._refresh = tuple(families), refresh

    async def scrape(self) -> bytes:
        """The response body of ``/metrics``, with what is read from the log brought up to date.

        Other tasks run between two families: those of a hundred endpoints take 20 ms together.
        """
        if self._refresh is not None:
            await self._refresh()
        parts = []
        for family in self._families:
            parts.append(generate_latest(family))
            await asyncio.sleep(0)
        return b"".join(parts)
