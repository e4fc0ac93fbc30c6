"""OpenTelemetry traces: one per event, from its detection over the append to each POST.

The trace id is computed from the event's id, so the log stores nothing for it: a retry after a restart, and a resend
days later, belong to the same trace. A span has types, endpoint names, ids of events, and outcomes, and nothing of what
was said, where, or by whom.
"""

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

FLUSH_S = 3.0
"""How long the spans that are left may take to reach the collector when the relay stops."""

_NS_PER_MS = 1_000_000

Appended = tuple[str, str, int, int]
"""An event's id and type, and when it was made and committed, in epoch milliseconds."""


def enabled(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables turn traces on."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return bool(environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that OpenTelemetry's SDK reads."""
    return {name: value for name, value in environ.items() if name.startswith("OTEL_")}


def trace_ids(event_id: str) -> tuple[int, int]:
    """The trace of an event, and the span of its detection and append."""
    digest = hashlib.sha256(event_id.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


@dataclass(frozen=True, slots=True)
class AttemptTrace:
    """The span of one POST."""

    event: SpanContext
    context: SpanContext

    @property
    def traceparent(self) -> bytes:
        """The header by which the receiver continues the trace (W3C Trace Context)."""
        context = self.context
        return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)


class Traces:
    """Sends spans over OTLP/HTTP from a thread of its own. Reads the standard variables of the process."""

    def __init__(self, version: str) -> None:
        self._resource = _resource(version)
        self._scope = InstrumentationScope("speech-relay", version)
        self._sampler = TracerProvider(resource=self._resource, shutdown_on_exit=False).sampler
        self._spans = BatchSpanProcessor(OTLPSpanExporter())

    def appended(self, events: Sequence[Appended]) -> None:
        """These events were committed."""
        for event_id, event_type, made_ms, committed_ms in events:
            self._end(
                event_type,
                self._context(event_id),
                None,
                SpanKind.PRODUCER,
                {"messaging.message.id": event_id, "speech_relay.event.type": event_type},
                made_ms * _NS_PER_MS,
                max(made_ms, committed_ms) * _NS_PER_MS,
            )

    def begin(self, event_id: str) -> AttemptTrace:
        """An attempt begins; its ``traceparent`` goes along."""
        event = self._context(event_id)
        own = SpanContext(event.trace_id, int.from_bytes(os.urandom(8)) or 1, False, event.trace_flags)
        return AttemptTrace(event, own)

    def end(
        self,
        attempt: AttemptTrace,
        *,
        endpoint: str,
        event_id: str,
        event_type: str,
        number: int,
        error: str | None,
        status: int | None,
        began_ms: int,
        elapsed_ms: float,
    ) -> None:
        """An attempt is over. ``error`` is the stage at which it failed, None if the event was accepted."""
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "messaging.message.id": event_id,
            "speech_relay.endpoint": endpoint,
            "speech_relay.event.type": event_type,
            "speech_relay.attempt": number,
        }
        if status is not None:
            attributes["http.response.status_code"] = status
        if error is not None:
            attributes["error.type"] = error
        start = began_ms * _NS_PER_MS
        self._end(
            f"POST {endpoint}",
            attempt.context,
            attempt.event,
            SpanKind.CLIENT,
            attributes,
            start,
            start + round(elapsed_ms * _NS_PER_MS),
            Status(StatusCode.UNSET if error is None else StatusCode.ERROR),
        )

    def close(self) -> None:
        """Send what is left. Blocks for at most ``FLUSH_S``."""
        closing = threading.Thread(target=self._spans.shutdown, name="traces", daemon=True)  # waits for up to 30 s
        closing.start()
        closing.join(FLUSH_S)

    def _context(self, event_id: str) -> SpanContext:
        trace, span = trace_ids(event_id)
        sampled = self._sampler.should_sample(None, trace, "event").decision.is_sampled()  # type: ignore[no-untyped-call]
        return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(sampled))

    def _end(
        self, name: str, context: SpanContext, parent: SpanContext | None, kind: SpanKind,
        attributes: Mapping[str, str | int], start_ns: int, end_ns: int, status: Status | None = None,
    ) -> None:  # fmt: skip
        self._spans.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                attributes,
                kind=kind,
                status=status or Status(StatusCode.UNSET),
                start_time=start_ns,
                end_time=end_ns,
                instrumentation_scope=self._scope,
            )
        )


def _resource(version: str) -> Resource:
    found = Resource.create({SERVICE_VERSION: version})
    named = not str(found.attributes[SERVICE_NAME]).startswith("unknown_service")
    return found if named else found.merge(Resource({SERVICE_NAME: "speech-relay"}))
