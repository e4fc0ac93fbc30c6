"""Everything that ``/metrics`` shows: what the parts count, and what is read at a scrape."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from relay.app.fleet import Fleet
from relay.app.listening import ListeningPart
from relay.app.reload import reload_counter
from relay.clock import Clock
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.subscription import Subscription
from relay.dispatch.metrics import DeliveryMetrics
from relay.errors import OutboxError
from relay.outbox.metrics import LogMetrics, file_gauges
from relay.outbox.operator.access import Log
from relay.outbox.operator.views import EndpointView
from relay.recording.metrics import CaptureMetrics
from relay.telemetry.job_counts import JobCounts
from relay.telemetry.metrics import Counter, Gauge, Labels, MetricFamily

_BACKLOG_EVERY_S = 5.0
_BACKLOG_SHARE = 0.02
"""Share of the time that may be spent on reading backlogs, on a thread of its own."""
_BACKLOG_WITHIN_S = 1.0
"""How long a scrape waits for them. Then it shows the former ones."""


class Backlogs:
    """What waits for each configured endpoint. It is read from the log's index of what is due: counting it would lose
    its value with every restart, and drift with every lost ring."""

    def __init__(
        self, log: Log | None, endpoints: Callable[[], Sequence[Endpoint]], delivery: DeliveryMetrics, clock: Clock
    ) -> None:
        """Without ``log`` there are no values."""
        self._log, self._endpoints, self._delivery, self._clock = log, endpoints, delivery, clock
        self._views: list[EndpointView] = []
        self._next_at = 0.0
        self._reading: asyncio.Task[None] | None = None

    @property
    def families(self) -> tuple[MetricFamily, ...]:
        def gauge(name: str, text: str, value: Callable[[EndpointView], float]) -> Gauge:
            return Gauge(name, text, lambda: self._sums(value), ("endpoint",))

        return (
            gauge("endpoint_pending_events", "Events that the endpoint has not received.", lambda one: one.pending),
            Gauge(
                "endpoint_oldest_pending_seconds",
                "Age of the oldest of them; 0 where nothing waits.",
                self._ages,
                ("endpoint",),
            ),
            gauge("endpoint_parked_events", "Events that are retried out of order.", lambda one: one.parked),
            gauge("endpoint_dead_events", "Events that are not sent any more, and kept.", lambda one: one.dead),
            gauge(
                "endpoint_disabled",
                "1 while nothing is sent to the endpoint until an operator enables it; for `other`, how many are.",
                lambda one: one.state.disabled_at is not None,
            ),
        )

    async def refresh(self) -> None:
        """Read them again, unless that was done a moment ago."""
        if self._log is None:
            return
        if self._reading is None or (self._reading.done() and time.monotonic() >= self._next_at):
            self._reading = asyncio.create_task(self._read(self._log), name="backlogs")
        await asyncio.wait([self._reading], timeout=_BACKLOG_WITHIN_S)

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _read(self, log: Log) -> None:
        began, configured = time.monotonic(), {endpoint.name: endpoint for endpoint in self._endpoints()}
        subscription = cache(lambda name: Subscription(configured[name]))

        def wanted(endpoint: str, room: str, participant: str, event_type: str) -> bool:
            if endpoint not in configured:
                return False
            asked = subscription(endpoint)
            return asked.wants_stream(room, participant) and asked.wants_type(event_type)

        try:
            views = await log.inspection.endpoints(wanted=wanted)
        except OutboxError:
            views = []  # no value rather than a former one; the writers report the log
        self._views = [view for view in views if view.state.name in configured]
        now = time.monotonic()
        self._next_at = now + max(_BACKLOG_EVERY_S, (now - began) / _BACKLOG_SHARE)

    def _sums(self, value: Callable[[EndpointView], float]) -> Mapping[Labels, float]:
        return self._delivery.label.sums({view.state.name: float(value(view)) for view in self._views})

    def _ages(self) -> Mapping[Labels, float]:
        now, ages = self._clock.now_ms(), dict[Labels, float]()
        for view in self._views:
            label = (self._delivery.label(view.state.name),)
            age = 0.0 if view.oldest_pending is None else max(0, now - view.oldest_pending) / 1000
            ages[label] = max(age, ages.get(label, 0.0))
        return ages


def webhook_counter() -> Counter:
    outcomes = ("looked", "ignored", "unsigned", "altered")
    return Counter(
        "livekit_webhooks",
        "Webhooks of the LiveKit server: looked (at the room), ignored (nothing begins in a room, or another process "
        "covers the rooms), and refused ones: unsigned (not with the project's key, or too late) and altered (not what "
        "was signed).",
        ("outcome",),
        start=[(each,) for each in outcomes],
    )


class ServiceMetrics:
    """The metrics of a service. Its parts count into the attributes."""

    def __init__(self) -> None:
        self.capture = CaptureMetrics()
        self.log = LogMetrics("service")
        self.delivery = DeliveryMetrics()
        self.reloads = reload_counter()
        self.webhooks = webhook_counter()
        self.jobs = JobCounts([*self.capture.families, *self.log.families])

    def families(
        self, listening: ListeningPart | None, backlogs: Backlogs, outbox_url: str, fleet: Fleet
    ) -> Mapping[str, Sequence[MetricFamily]]:
        """All families, by subject."""
        rooms, service = (listening.room_gauges, listening.service_gauges) if listening else ((), ())
        return {
            "Rooms and speech": (*rooms, *self._heard, *self.capture.families),
            "The log": (*self.log.families, *file_gauges(outbox_url)),
            "Deliveries": (*self.delivery.families, *backlogs.families),
            "Service": (*service, self.reloads, self.webhooks, _processes(fleet)),
        }

    @property
    def _heard(self) -> tuple[MetricFamily, ...]:
        return (
            Gauge("streams_heard", "Audio tracks that the relay listens to.", lambda: self.jobs.level("streams")),
            Gauge("participants_heard", "Participants with such a track.", lambda: self.jobs.level("participants")),
        )


def _processes(fleet: Fleet) -> MetricFamily:
    return Gauge(
        "fleet_processes",
        "Processes of the relay on this log, by role (run, worker, dispatch) and state: ready, starting, not ready, or"
        " lost in the last ten minutes. Every process shows all of them.",
        lambda: {labels: float(count) for labels, count in fleet.counts().items()},
        ("role", "state"),
    )
