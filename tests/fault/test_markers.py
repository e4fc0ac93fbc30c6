"""What must never be told: planted in everything that the relay handles, and looked for in everything that it tells."""

import asyncio
import base64
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from relay.api.appends import Appends
from relay.api.backend import Backend
from relay.api.routes.all import routers_of
from relay.api.routes.page import FOLDER
from relay.api.server import HttpServer
from relay.app.delivery import delivering
from relay.app.fleet import Fleet
from relay.app.metrics import Backlogs, ServiceMetrics
from relay.clock import SystemClock
from relay.config.api import ListenAddress, Token
from relay.events.envelope import ParticipantRef, RoomRef
from relay.outbox.operator.access import open_log
from relay.outbox.outbox import Outbox
from relay.recording.recorder import Records
from relay.speech.context import StreamContext, TrackerSettings
from relay.speech.observations import (
    Anchored,
    Ended,
    Listening,
    SourceDown,
    SourceUp,
    SttTranscript,
    Transcribed,
    VadEnded,
    VadStarted,
)
from relay.telemetry.logs import setup_logging
from relay.telemetry.metrics import Metrics
from relay.telemetry.traces import Traces
from tests.support.builders import endpoint
from tests.support.dispatch.dispatching import SOON, until
from tests.support.dispatch.receiver import Answer, Receiver, receiving
from tests.support.telemetry.collector import collecting


def marker(what: str) -> str:
    return f"mark9{what}9mark"


TOLD_NOWHERE = {
    what: marker(what)
    for what in (
        *("text", "identity", "name", "attribute", "value", "metadata"),
        *("secret", "header", "token", "wrongtoken", "user", "password", "path", "query"),
        *("asked", "body"),
    )
}
ROOM = marker("room")
"""Told in logs, which name rooms, and nowhere else."""


OF_THE_TEST = ("httpx", "httpcore.connection", "httpcore.http11", "aiohttp.server", "aiohttp.access")
"""The loggers of the test's own client and receivers."""


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for name in OF_THE_TEST:
        logging.getLogger(name).disabled = True
    yield
    for name in OF_THE_TEST:
        logging.getLogger(name).disabled = False
    root.handlers[:] = handlers
    root.setLevel(level)


def url_of(base: str) -> str:
    return f"{base.rstrip('/')}/{TOLD_NOWHERE['path']}?key={TOLD_NOWHERE['query']}"


def url_with_password() -> str:
    """A configuration with such a URL is refused."""
    return url_of(f"https://{TOLD_NOWHERE['user']}:{TOLD_NOWHERE['password']}@crm.example")


def secret() -> str:
    return "whsec_" + base64.b64encode(TOLD_NOWHERE["secret"].encode() * 3).decode()


def an_endpoint(name: str, base: str, **keys: Any) -> Any:
    m = TOLD_NOWHERE
    options = {"url": url_of(base), "signing": "standard", "secret": secret(), "retry": SOON, "breaker": None}
    return endpoint(name, **options, headers={"x-api-key": m["header"]}, timeout="2s", **keys)


class Relay:
    """A relay without LiveKit: its log, deliveries, HTTP API and traces."""

    def __init__(self, outbox: Outbox, http: httpx.AsyncClient, metrics: ServiceMetrics) -> None:
        self.outbox, self.http, self.metrics = outbox, http, metrics


@asynccontextmanager
async def running(folder: Path, endpoints: list[Any], traces: Traces) -> AsyncIterator[Relay]:
    url, clock, stop, metrics = f"sqlite:///{folder}/relay.db", SystemClock(), asyncio.Event(), ServiceMetrics()
    metrics.log.on_append = lambda records: traces.appended(
        [(each.id, each.type, each.emitted_at, each.emitted_at) for each in records]
    )
    async with AsyncExitStack() as stack:
        outbox = await Outbox.open(url, name="relay", clock=clock, metrics=metrics.log)
        stack.push_async_callback(outbox.aclose)
        await outbox.lanes.sync_endpoints([each.name for each in endpoints])
        log = await stack.enter_async_context(open_log(url, clock))
        backlogs = Backlogs(log, lambda: endpoints, metrics.delivery, clock)
        stack.push_async_callback(backlogs.aclose)
        families = metrics.families(None, backlogs, url, Fleet(outbox, clock, "this"))
        shown = chain(families["The log"], families["Deliveries"], metrics.capture.families)
        token = Token.model_validate({"name": "ops", "token": TOLD_NOWHERE["token"] + "x" * 20})
        at = ListenAddress("api.listen", "127.0.0.1:0", (), api=True, tokens=(token,))
        appends = Appends(stop)
        backend = Backend(log, lambda: endpoints, clock, stop, appends)
        server = HttpServer(at, {}, Metrics(shown, refresh=backlogs.refresh), routers_of(backend))
        await server.start()
        stack.push_async_callback(server.stop)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=30))
        await stack.enter_async_context(
            delivering(outbox, endpoints, clock, grace_s=1.0, metrics=metrics.delivery, traces=traces)
        )
        yield Relay(outbox, http, metrics)
        stop.set()


async def speak(relay: Relay) -> None:
    """One stream of somebody whose every property is marked, with an outage in it."""
    m, clock, ids = TOLD_NOWHERE, SystemClock(), count()
    context = StreamContext(
        stream_id=f"str_{next(ids):026d}",
        room=RoomRef(sid="RM_1", name=ROOM),
        participant=ParticipantRef(
            sid="PA_1", identity=m["identity"], name=m["name"], kind="standard", attributes={m["attribute"]: m["value"]}
        ),
        track_sid="TR_1",
        track_source="microphone",
        vad="silero",
        stt="deepgram/nova-3",
    )
    settings = TrackerSettings()
    record = await Records(relay.outbox, clock, settings, metrics=relay.metrics.capture).open(context)
    assert record is not None
    now = clock.now_ms()
    for observation in (
        Listening(now, now),
        Anchored(0, now),
        VadStarted(onset_ms=0, speech_ms=50),
        SttTranscript(m["text"], final=False),
        VadEnded(end_ms=900),
        SttTranscript(m["text"], final=True, start_ms=0, end_ms=900),
        Transcribed(m["text"], final=True),
        SourceDown("stt", "lost", now),
        SourceUp("stt", "lost", now, 10, None),
        # too large for a receiver: the log says so
        SttTranscript(m["text"] * 30_000, final=True, start_ms=0, end_ms=900),
        Ended("unpublished", heard_ms=1_000),
    ):
        record.observe(observation)
    await record.close()


async def ask(http: httpx.AsyncClient) -> str:
    """Every answer that must not repeat what was asked: refused, wrong and unknown requests, and what is public."""
    m = TOLD_NOWHERE
    operator, wrong = ({"Authorization": f"Bearer {each}"} for each in (m["token"] + "x" * 20, m["wrongtoken"] * 2))
    marked = m["asked"]
    answers = [
        await http.get("/v1/events", headers=wrong),
        await http.get(f"/v1/{marked}", headers=operator),
        await http.get(f"/{marked}?{marked}={marked}"),
        await http.get("/v1/events", params={"type": marked, "after": marked}, headers=operator),
        await http.get("/v1/events", params={"unknown": marked}, headers=operator),
        await http.get(f"/v1/streams/{marked}/events", headers=operator),
        await http.get(f"/v1/rooms/{marked}", headers=operator),
        await http.get(f"/v1/deliveries/{marked}", headers=operator),
        await http.post(f"/v1/endpoints/{marked}/enable", json={"unknown": m["body"]}, headers=operator),
        await http.post("/v1/endpoints/crm/resend", json={"unknown": m["body"]}, headers=operator),
        await http.post("/v1/endpoints/crm/resend", content=m["body"].encode(), headers=operator),
        await http.put("/v1/endpoints/new", json={"url": url_with_password(), "unknown": m["body"]}, headers=operator),
        await http.post("/v1/livekit/webhook", content=m["body"].encode(), headers=wrong),
        await http.get("/", headers={"Host": f"{marked}.example"}),
    ]
    assert all(answer.status_code >= 400 for answer in answers), [answer.status_code for answer in answers]
    start = await http.get("/")
    names = [str(each.relative_to(FOLDER)) for each in sorted(FOLDER.rglob("*")) if each.is_file()]
    assets = [await http.get(f"/page/{name}") for name in names]
    assert any(asset.status_code == 200 for asset in assets)
    public = [start, *assets, await http.get("/openapi.json"), await http.get("/readyz"), await http.get("/healthz")]
    return "\n".join(f"{answer.headers}{answer.text}" for answer in (*answers, *public))


def found(text: str | bytes) -> list[str]:
    """What of the markers is in a text, in the forms in which it could be."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [what for what, mark in TOLD_NOWHERE.items() if mark in text or secret() in text]


@pytest.mark.parametrize("log_format", ["json", "human"])
async def test_no_marker_is_told_in_logs_metrics_traces_problems_or_pages(
    log_format: Literal["json", "human"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    setup_logging(log_format, "debug", out)
    async with collecting() as collector, receiving() as good, receiving() as bad:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        bad.answer = lambda _: Answer(500, body=TOLD_NOWHERE["text"].encode())
        endpoints = [
            an_endpoint("crm", good.url),
            an_endpoint("failing", bad.url),
            an_endpoint("closed", "http://127.0.0.1:9"),
            an_endpoint("unknown", "http://nowhere.invalid"),
            an_endpoint("untrusted", good.url.replace("http://", "https://")),
        ]
        traces = Traces("1.0")
        try:
            async with running(tmp_path, endpoints, traces) as relay:
                await speak(relay)
                await told_everywhere(relay, good)
                problems = await ask(relay.http)
                metrics = (await relay.http.get("/metrics")).text
        finally:
            await asyncio.to_thread(traces.close)
        assert_heard(good)
        spans = b"".join(collector.requests)

    logs = out.getvalue()
    assert found(logs) == []
    assert found(metrics) == found(spans) == found(problems) == []
    assert ROOM not in metrics + problems + spans.decode("utf-8", "replace")
    for stage in ("status 500", "connect", "dns", "tls"):
        assert stage in logs, "each way to fail was logged"
    assert 'outcome="status_5xx"' in metrics
    assert len(collector.spans) > 10


async def told_everywhere(relay: Relay, good: Receiver) -> None:
    """Until one endpoint has everything, and each of the others has failed."""

    def attempted(name: str) -> bool:
        attempts = relay.metrics.delivery.attempts
        return attempts.value(endpoint=name) - attempts.value(endpoint=name, outcome="delivered") >= 2

    others = ("failing", "closed", "unknown", "untrusted")
    await until(
        lambda: b"stream.ended" in b"".join(each.body for each in good.requests) and all(map(attempted, others))
    )


def assert_heard(good: Receiver) -> None:
    """The markers were really there: a receiver has them."""
    bodies = b"".join(each.body for each in good.requests)
    assert {"text", "identity", "name", "attribute", "value"} <= set(found(bodies))
    assert TOLD_NOWHERE["path"] in good.requests[0].path
    assert good.requests[0].headers["x-api-key"] == TOLD_NOWHERE["header"]
