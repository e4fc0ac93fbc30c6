"""Traces, as a collector receives them over OTLP/HTTP."""

import asyncio
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus
from standardwebhooks import Webhook

from relay.clock import SystemClock
from relay.dispatch.signing import new_secret
from relay.telemetry.job_counts import CountReports, JobCounts
from relay.telemetry.traces import Traces, enabled, trace_ids
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, until
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Received, Receiver, receiving
from tests.support.telemetry.collector import Collector, attributes, collecting


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield collector


@contextmanager
def tracing() -> Iterator[Traces]:
    traces = Traces("1.0")
    try:
        yield traces
    finally:
        traces.close()


async def test_an_event_and_each_of_its_posts_are_one_trace(collector: Collector) -> None:
    log, secret = MemoryLog(SystemClock()), new_secret()
    first, answers = a_record(1), iter([503, 200])
    with tracing() as traces:
        async with receiving() as receiver:
            receiver.answer = lambda _: Answer(next(answers))
            crm = endpoint(receiver.url, signing="standard", secret=secret, headers={"traceparent": "configured"})
            async with dispatching(log, crm, traces=traces) as (dispatcher, _):
                traces.appended([(first.id, first.type, first.emitted_at, first.emitted_at + 7)])
                log.append(log.open(), first)
                await until(lambda: counted(dispatcher, "delivered") == 1)
        trace, root = trace_ids(first.id)
        await until(lambda: len(collector.of(trace)) == 3)
    event, failed, delivered = collector.of(trace)

    assert (event.name, event.span_id, event.parent_span_id) == ("speech.started", root.to_bytes(8), b"")
    assert event.end_time_unix_nano - event.start_time_unix_nano == 7_000_000
    assert attributes(event) == {"messaging.message.id": first.id, "speech_relay.event.type": "speech.started"}

    for number, span in enumerate((failed, delivered), 1):
        assert (span.name, span.kind, span.parent_span_id) == ("POST crm", Span.SPAN_KIND_CLIENT, root.to_bytes(8))
        assert attributes(span)["speech_relay.attempt"] == number
        assert span.end_time_unix_nano > span.start_time_unix_nano
    assert (failed.status.code, attributes(failed)["error.type"]) == (SpanStatus.STATUS_CODE_ERROR, "status")
    assert (attributes(failed)["http.response.status_code"], attributes(delivered)["http.response.status_code"]) == (
        503,
        200,
    )
    sent = [request.headers["traceparent"] for request in receiver.requests]
    assert sent == [f"00-{trace:032x}-{span.span_id.hex()}-01" for span in (failed, delivered)]
    for request in receiver.requests:  # headers are not signed: the signature holds with one more
        Webhook(secret).verify(request.body, dict(request.headers))
    assert collector.resources[0]["service.name"] == "speech-relay"


async def test_what_a_job_appends_is_traced_by_the_service(collector: Collector) -> None:
    with tracing() as traces:
        async with JobCounts([]) as jobs:
            jobs.on_appended = traces.appended
            levels = {"streams": 1.0}
            appended = deque(
                [("evt_1", "vad.speech_started", 1_000, 1_005), ("evt_2", "vad.speech_ended", 1_100, 1_105)]
            )
            report = CountReports(jobs.path, [], lambda: levels, appended)
            await report.start()
            await until(lambda: len(collector.spans) == 2)
            await report.aclose()
    assert [span.name for span in collector.spans] == ["vad.speech_started", "vad.speech_ended"]


async def test_a_ratio_of_the_events_is_traced_with_all_of_their_posts(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    ids = [f"evt_{number}" for number in range(200)]
    with tracing() as traces:
        traces.appended([(each, "speech.started", 1_000, 1_001) for each in ids])
        sampled = [each for each in ids if traces.begin(each).traceparent.endswith(b"-01")]
        await until(lambda: len(collector.spans) == len(sampled))
    assert 0 < len(sampled) < len(ids)


async def test_a_collector_that_does_not_answer_delays_neither_deliveries_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    over = asyncio.Event()

    async def answer(_: Received) -> Answer:
        await over.wait()
        return Answer()

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    monkeypatch.setattr("relay.telemetry.traces.FLUSH_S", 0.2)
    log = MemoryLog(SystemClock())
    async with receiving() as hung:
        hung.answer = answer
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", hung.url)
        with tracing() as traces:
            async with dispatching(log, endpoint(receiver.url), traces=traces) as (dispatcher, _):
                log.append(log.open(), *(a_record(number) for number in range(1, 21)))
                await until(lambda: counted(dispatcher, "delivered") == 20)
        assert not hung.answered
        over.set()
        # or the exporter's thread would go on, and log while other tests run
        await asyncio.gather(*(asyncio.to_thread(one.join) for one in threading.enumerate() if one.name == "traces"))


async def test_without_the_variables_nothing_is_traced_and_no_header_is_sent(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await until(lambda: counted(dispatcher, "delivered") == 1)
    assert "traceparent" not in receiver.requests[0].headers


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
    ids=["nothing set", "an endpoint", "an endpoint for traces", "the SDK is off", "no exporter"],
)
def test_the_standard_variables_turn_traces_on(environ: dict[str, str], on: bool) -> None:
    assert enabled(environ) is on


def test_a_trace_id_follows_from_the_event_s_id() -> None:
    trace, span = trace_ids("evt_1")
    assert (trace, span) == trace_ids("evt_1")
    assert trace_ids("evt_2")[0] != trace
    assert re.fullmatch("[0-9a-f]{32}", f"{trace:032x}")
