"""Metrics in Prometheus's text format."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import prometheus_client
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True, slots=True)
class Gauge:
    """A gauge whose value is read at each scrape."""

    name: str
    """With its unit, and without the prefix ``speech_relay_``."""
    help: str
    """One line."""
    read: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters with one name, read at each scrape."""

    name: str
    """Without the prefix ``speech_relay_`` and the suffix ``_total``."""
    help: str
    """One line."""
    labels: tuple[str, ...]
    read: Callable[[], Mapping[tuple[str, ...], float]]
    """Counts by the values of the labels."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Called by a Prometheus registry to collect the values."""
        family = CounterMetricFamily(f"speech_relay_{self.name}", self.help, labels=self.labels)
        for values, count in self.read().items():
            family.add_metric(values, count)
        yield family


class Metrics:
    """Separate from the process's own registry, which libraries use."""

    def __init__(self, gauges: Sequence[Gauge], counts: Sequence[Counts] = ()) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        for each in counts:
            self._registry.register(each)
        for gauge in gauges:
            figure = prometheus_client.Gauge(gauge.name, gauge.help, namespace="speech_relay", registry=self._registry)
            figure.set_function(gauge.read)

    def page(self) -> bytes:
        """The response body of ``/metrics``, in UTF-8."""
        return generate_latest(self._registry)
