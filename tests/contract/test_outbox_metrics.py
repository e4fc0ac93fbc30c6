"""What the log counts and shows of itself, on a real database."""

import re
from collections.abc import Iterable

from relay.app.metrics import Backlogs
from relay.dispatch.metrics import DeliveryMetrics
from relay.outbox.metrics import LogMetrics, file_gauges
from relay.outbox.outbox import Outbox
from relay.telemetry.metrics import MetricFamily, Metrics
from tests.support.builders import EPOCH_MS, interim, new_stream, run
from tests.support.dispatch.dispatching import endpoint
from tests.support.outbox.outbox_situation import every_state, looking
from tests.support.outbox.outbox_store import Store

LINE = re.compile(r"^speech_relay_(\S+) (\S+)$", re.MULTILINE)


async def values(families: Iterable[MetricFamily]) -> dict[str, float]:
    page = (await Metrics(families).scrape()).decode()
    return {name: float(value) for name, value in LINE.findall(page)}


async def test_appended_events_are_counted_by_type_and_timed(store: Store) -> None:
    metrics = LogMetrics("room")
    outbox = await Outbox.open(store.url, name="job-1", clock=store.clock, metrics=metrics)
    try:
        log = await outbox.open_stream(new_stream())
        await log.append([*run(1, 1, 2), interim(1, 3, revision=1)])
    finally:
        await outbox.aclose()
    shown = await values([*metrics.families, *file_gauges(store.url)])
    assert shown['events_total{type="stt.speech_started"}'] == 2
    assert shown['events_total{type="transcript.interim"}'] == 1
    assert shown["append_seconds_count"] == 3
    assert shown['log_transaction_seconds_count{process="room"}'] >= 1
    if store.url.startswith("sqlite"):  # a database server has metrics of its own
        assert shown["log_bytes"] > 0
        assert shown["log_disk_free_bytes"] > 0


async def test_the_backlog_of_each_configured_endpoint_is_shown(store: Store) -> None:
    await every_state(store)  # a log with an endpoint bi, too, which is not configured here
    delivery = DeliveryMetrics()
    async with looking(store) as log:
        backlogs = Backlogs(log, lambda: [endpoint("http://127.0.0.1/", "crm")], delivery, store.clock)
        store.clock.at = EPOCH_MS + 90_000
        await backlogs.refresh()
        shown = await values(backlogs.families)
        await backlogs.aclose()
    assert shown == {
        'endpoint_pending_events{endpoint="crm"}': 3,
        'endpoint_oldest_pending_seconds{endpoint="crm"}': 90,
        'endpoint_parked_events{endpoint="crm"}': 1,
        'endpoint_dead_events{endpoint="crm"}': 1,
        'endpoint_disabled{endpoint="crm"}': 0,
    }


async def test_endpoints_without_a_label_share_one_and_the_oldest_age(store: Store) -> None:
    await every_state(store)
    delivery = DeliveryMetrics()
    for number in range(100):
        delivery.label(f"endpoint-{number}")
    async with looking(store) as log:
        both = [endpoint("http://127.0.0.1/", "crm"), endpoint("http://127.0.0.1/", "bi")]
        backlogs = Backlogs(log, lambda: both, delivery, store.clock)
        store.clock.at = EPOCH_MS + 90_000
        await backlogs.refresh()
        shown = await values(backlogs.families)
        await backlogs.aclose()
    assert shown['endpoint_pending_events{endpoint="other"}'] == 11
    assert shown['endpoint_oldest_pending_seconds{endpoint="other"}'] == 90
    assert len(shown) == 5
