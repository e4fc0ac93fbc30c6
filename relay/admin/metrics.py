"""Figures for a Prometheus, in its text format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import prometheus_client
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure that is read when it is asked for."""

    name: str
    """With its unit, and without the prefix ``speech_relay_``."""
    help: str
    """One line."""
    read: Callable[[], float]


class Metrics:
    """Apart from what libraries count in the process's own registry."""

    def __init__(self, gauges: Sequence[Gauge]) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        for gauge in gauges:
            figure = prometheus_client.Gauge(gauge.name, gauge.help, namespace="speech_relay", registry=self._registry)
            figure.set_function(gauge.read)

    def page(self) -> bytes:
        """What ``/metrics`` answers, in UTF-8."""
        return generate_latest(self._registry)
