"""Counters and histograms: what the page shows of them, and what one process passes on to another."""

from collections.abc import Sequence

import pytest

from relay.clock import SystemClock
from relay.dispatch.metrics import EndpointLabels
from relay.events.envelope import StreamEvent
from relay.recording.metrics import CaptureMetrics
from relay.recording.recorder import StreamRecorder
from relay.speech.observations import (
    Anchored,
    Ended,
    Listening,
    SourceDown,
    SttTranscript,
    Transcribed,
    VadEnded,
    VadStarted,
)
from relay.telemetry.metrics import Counter, Gauge, Histogram, Metrics
from tests.support.builders import a_record
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, until
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import Answer, Receiver
from tests.support.outbox.outbox_store import HandClock
from tests.unit.timelines.play import T0, tracker


async def test_the_page_has_every_family_in_prometheus_s_format() -> None:
    attempts = Counter("attempts", "Requests.", ("endpoint", "outcome"))
    seconds = Histogram("attempt_seconds", "Their time.", (0.1, 1), ("endpoint",))
    attempts.inc(("crm", "delivered"), 2)
    for value in (0.1, 0.5, 20):
        seconds.observe(value, ("crm",))
    waiting = Gauge("waiting", "What waits.", lambda: {("crm",): 3.0}, ("endpoint",))
    assert (await Metrics([attempts, seconds, waiting]).scrape()).decode() == (
        "# HELP speech_relay_attempts_total Requests.\n"
        "# TYPE speech_relay_attempts_total counter\n"
        'speech_relay_attempts_total{endpoint="crm",outcome="delivered"} 2.0\n'
        "# HELP speech_relay_attempt_seconds Their time.\n"
        "# TYPE speech_relay_attempt_seconds histogram\n"
        'speech_relay_attempt_seconds_bucket{endpoint="crm",le="0.1"} 1.0\n'
        'speech_relay_attempt_seconds_bucket{endpoint="crm",le="1.0"} 2.0\n'
        'speech_relay_attempt_seconds_bucket{endpoint="crm",le="+Inf"} 3.0\n'
        'speech_relay_attempt_seconds_count{endpoint="crm"} 3.0\n'
        'speech_relay_attempt_seconds_sum{endpoint="crm"} 20.6\n'
        "# HELP speech_relay_waiting What waits.\n"
        "# TYPE speech_relay_waiting gauge\n"
        'speech_relay_waiting{endpoint="crm"} 3.0\n'
    )


async def test_a_counter_is_shown_before_its_first_count() -> None:
    reloads = Counter("reloads", "Reloads.", ("result",), [("ok",), ("failed",)])
    page = (await Metrics([Counter("rings_lost", "Rings."), reloads]).scrape()).decode()
    assert "speech_relay_rings_lost_total 0.0\n" in page
    assert 'speech_relay_reloads_total{result="failed"} 0.0\n' in page


async def test_another_process_adds_each_count_once() -> None:
    counted, seconds = Counter("events", "Events.", ("type",)), Histogram("append_seconds", "Time.", (0.1, 1))
    total, total_seconds = Counter("events", "Events.", ("type",)), Histogram("append_seconds", "Time.", (0.1, 1))
    for _ in range(3):
        counted.inc(("vad.speech_started",))
        seconds.observe(0.5, times=2)
        total.add(counted.take())
        total_seconds.add(seconds.take())
    assert counted.take() == seconds.take() == []
    assert total.value() == 3
    assert await Metrics([total_seconds]).scrape() == await Metrics([seconds]).scrape()


def test_so_many_endpoints_have_labels_of_their_own_and_the_rest_share_one() -> None:
    label = EndpointLabels(most=2)
    assert [label(name) for name in ("crm", "audit", "third", "crm", "fourth")] == [
        "crm",
        "audit",
        "other",
        "crm",
        "other",
    ]
    values = {"crm": 1.0, "third": 2.0, "fourth": 3.0, "fifth": 4.0}
    assert label.sums(values) == {("crm",): 1.0, ("other",): 9.0}


async def test_a_dispatcher_counts_its_attempts_and_what_becomes_of_the_events(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    answers = iter([503, 200, 200])
    receiver.answer = lambda _: Answer(next(answers))
    async with dispatching(log, endpoint(receiver.url, events=["speech.*"])) as (dispatcher, _):
        log.append(log.open(), a_record(1), a_record(2, "vad.speech_started"), a_record(3))
        await until(lambda: counted(dispatcher, "delivered") == 2)
        metrics = dispatcher.metrics
    assert metrics.attempts.value(endpoint="crm", outcome="status_5xx") == 1
    assert metrics.attempts.value(endpoint="crm", outcome="delivered") == 2
    assert counted(dispatcher, "retried") == 1
    assert counted(dispatcher, "skipped") == 1, "the endpoint does not subscribe to the second"
    page = (await Metrics(metrics.families).scrape()).decode()
    assert 'speech_relay_attempt_seconds_count{endpoint="crm"} 3.0' in page
    assert 'speech_relay_delivery_seconds_count{endpoint="crm"} 2.0' in page
    assert 'speech_relay_endpoint_breaker_open{endpoint="crm"} 0.0' in page


async def test_an_interim_that_is_not_sent_is_counted_as_outdated(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    async with dispatching(log, endpoint(receiver.url)) as (dispatcher, _):
        interims = [a_record(n, "transcript.interim", utterance="u", revision=n) for n in (1, 2, 3)]
        log.append(log.open(), *interims, a_record(4))
        await until(lambda: bool(receiver.requests) and receiver.requests[-1].json()["stream"]["sequence"] == 4)
        assert dispatcher.metrics.outdated.value(endpoint="crm") == 2


async def test_an_open_breaker_is_shown(receiver: Receiver) -> None:
    log = MemoryLog(SystemClock())
    receiver.answer = lambda _: Answer(503)
    breaker = {"requests": 2, "failing": 0.5, "window": "10s", "rest": "60s"}
    async with dispatching(log, endpoint(receiver.url, breaker=breaker), grace=0.1) as (dispatcher, _):
        log.append(log.open(), a_record(1))
        await until(lambda: dispatcher.metrics.breakers_open() == {"crm": 1})


NOTHING = dict.fromkeys(("streams", "participants", "vad_down", "stt_down", "session_down", "realtime_down"), 0)


async def test_a_recorder_counts_detections_streams_and_the_time_to_a_final() -> None:
    class Accepting:
        async def append(self, events: Sequence[StreamEvent]) -> None:
            pass

    metrics, clock = CaptureMetrics(), HandClock(T0)
    recorder = StreamRecorder(tracker(), Accepting(), clock, metrics=metrics)
    try:
        recorder.observe(Listening(T0, T0))
        recorder.observe(Anchored(0, T0))
        assert metrics.levels() == {**NOTHING, "streams": 1, "participants": 1}
        clock.at = T0 + 200
        recorder.observe(VadStarted(onset_ms=100, speech_ms=50))
        clock.at = T0 + 1_100
        recorder.observe(VadEnded(end_ms=1_000))
        clock.at = T0 + 1_400
        recorder.observe(SttTranscript("hello", final=True, start_ms=100, end_ms=1_000))
        recorder.observe(Transcribed("hello", final=True))
        recorder.observe(SourceDown("stt", "lost", clock.now_ms()))
        recorder.observe(Ended("unpublished", heard_ms=1_500))
    finally:
        recorder.close()
    assert metrics.levels() == NOTHING
    assert (metrics.streams.value(), metrics.ended.value(reason="unpublished")) == (1, 1)
    assert metrics.detections.value(detector="vad") == 2
    assert metrics.detections.value(detector="stt", kind="final") == 1
    assert metrics.sources_failed.value(detector="stt", reason="lost") == 1
    assert metrics.stt_outages.value(provider="deepgram/nova-3", reason="lost") == 1
    ((labels, series),) = metrics.final_s.take()
    assert labels == ("deepgram/nova-3",)
    assert series[-1] == pytest.approx(0.4), "from the end of the last word, at 1.0 s, to 1.4 s"
