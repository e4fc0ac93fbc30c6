"""What a dispatcher counts: attempts, deliveries, and how long they take."""

from collections.abc import Callable, Mapping

from relay.dispatch.http.outcome import Delivered, Failed, Outcome
from relay.telemetry.metrics import Counter, Gauge, Histogram, Labels, MetricFamily

MOST_ENDPOINTS = 100
"""Endpoints with a label of their own. Thousands of them would make a page of megabytes."""
OTHER = "other"
"""The label of all further endpoints."""

RESULTS = ("delivered", "retried", "parked", "dead", "skipped")

_ATTEMPT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_DELIVERY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800, 3600 * 6)
_ENDPOINT: Labels = ("endpoint",)


class EndpointLabels:
    """Gives the first endpoints that it sees labels of their own."""

    def __init__(self, most: int = MOST_ENDPOINTS, introduced: Callable[[str], None] = lambda _: None) -> None:
        """``introduced`` is called once with each label."""
        self._most, self._introduced = most, introduced
        self._known: dict[str, str] = {}

    def __call__(self, endpoint: str) -> str:
        return self._known.get(endpoint) or self._introduce(endpoint)

    def sums(self, values: Mapping[str, float]) -> dict[Labels, float]:
        """Values by endpoint, those of the endpoints without a label added up."""
        summed: dict[Labels, float] = {}
        for endpoint, value in values.items():
            label = (self(endpoint),)
            summed[label] = summed.get(label, 0) + value
        return summed

    def _introduce(self, endpoint: str) -> str:
        if len(self._known) >= self._most:
            return OTHER  # not stored: it may be one of very many
        self._known[endpoint] = endpoint
        self._introduced(endpoint)
        return endpoint


class DeliveryMetrics:
    """Counted on the dispatcher's event loop."""

    def __init__(self) -> None:
        self.label = EndpointLabels(introduced=self._show)
        self._keys: dict[str, tuple[Labels, Labels]] = {}
        """By endpoint, the labels that each attempt needs: made once."""
        self.attempts = Counter(
            "attempts",
            "Requests to endpoints, by outcome: delivered, the status class of the answer, the stage at which it"
            " failed, or fault for a failure on the relay's side.",
            ("endpoint", "outcome"),
        )
        self.attempt_s = Histogram(
            "attempt_seconds", "Time of a request until the head of its answer, or its failure.", _ATTEMPT_S, _ENDPOINT
        )
        self.deliveries = Counter(
            "deliveries",
            "Decisions about events, by result: delivered, retried (waits for another attempt), parked (retried out of"
            " order), dead (not sent any more), skipped (not subscribed to, or an interim that is outdated or failed).",
            ("endpoint", "result"),
        )
        self.delivery_s = Histogram(
            "delivery_seconds",
            "Time from appending an event to its 2xx answer, retries included. Without events resent by an operator.",
            _DELIVERY_S,
            _ENDPOINT,
        )
        self.outdated = Counter(
            "interims_outdated", "Interims not sent, because a newer one was there or their time was over.", _ENDPOINT
        )
        self.fenced = Counter("lanes_fenced", "Lanes that another dispatcher had taken over.")
        self.rings_lost = Counter(
            "rings_lost",
            "Streams whose growth the dispatcher found only by its sweep: each event waited for up to a second.",
        )
        self.breakers_open: Callable[[], Mapping[str, float]] = dict
        """By endpoint, 1 while its circuit breaker is open. Set by the dispatcher."""
        self._breakers = Gauge(
            "endpoint_breaker_open",
            "1 while the endpoint is not sent to because it mostly fails; for `other`, how many are not.",
            lambda: self.label.sums(self.breakers_open()),
            _ENDPOINT,
        )

    @property
    def families(self) -> tuple[MetricFamily, ...]:
        return (
            self.attempts, self.attempt_s, self.deliveries, self.delivery_s, self.outdated, self.fenced,
            self.rings_lost, self._breakers,
        )  # fmt: skip

    def _keys_of(self, endpoint: str) -> tuple[Labels, Labels]:
        label = self.label(endpoint)
        keys = (label,), (label, "delivered")
        if label != OTHER:  # not stored for the others: they may be very many
            self._keys[endpoint] = keys
        return keys

    def _show(self, label: str) -> None:
        for result in RESULTS:
            self.deliveries.show((label, result))

    def attempted(self, endpoint: str, outcome: Outcome, arrived_ms: int | None) -> None:
        """An attempt is over. ``arrived_ms``: how long after it was appended the event was accepted, if it was."""
        labels, delivered = self._keys.get(endpoint) or self._keys_of(endpoint)
        self.attempts.inc(delivered if isinstance(outcome, Delivered) else (labels[0], _word(outcome)))
        self.attempt_s.observe(outcome.elapsed_ms / 1000, labels)
        if arrived_ms is not None:
            self.delivery_s.observe(arrived_ms / 1000 if arrived_ms > 0 else 0, labels)

    def decided(self, endpoint: str, result: str) -> None:
        """What follows from the attempt."""
        labels, delivered = self._keys.get(endpoint) or self._keys_of(endpoint)
        self.deliveries.inc(delivered if result == "delivered" else (labels[0], result))

    def skipped(self, endpoint: str, events: int, outdated: int) -> None:
        """Events were passed over; ``outdated`` of them are interims that the endpoint subscribes to."""
        label = self.label(endpoint)
        self.deliveries.inc((label, "skipped"), events)
        if outdated:
            self.outdated.inc((label,), outdated)


def _word(outcome: Outcome) -> str:
    match outcome:
        case Failed(stage="status", status=int(status)):
            return f"status_{status // 100}xx"
        case _:
            return outcome.stage
