"""The workers of an endpoint: take a lane or a parked event, pass admission, send, repeat."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from relay.clock import Clock
from relay.dispatch.admission import Permit
from relay.dispatch.delivery.attempt_report import log_attempt, result_of, tries_of
from relay.dispatch.delivery.commit import Commits
from relay.dispatch.delivery.reader import LaneReader
from relay.dispatch.endpoint.runtime import Connection, EndpointRuntime
from relay.dispatch.http.outcome import Delivered, Failed, Outcome
from relay.dispatch.leases import outlasts_attempt
from relay.dispatch.metrics import DeliveryMetrics
from relay.dispatch.policy import REST_MS, Blame, Disable, Verdict, decide
from relay.dispatch.projection import Projections
from relay.dispatch.state import DispatcherState
from relay.dispatch.work import Phase, Work
from relay.events.envelope import Delivery
from relay.outbox.records import Record

RESENT = (b"relay-resend", b"true")
"""Marks an event that was delivered before and is sent again at an operator's request."""
INTERIM_LIMIT_S = 0.5
"""How long an interim's attempt may continue once a durable event waits behind it. Most endpoints answer sooner, and an
abort costs the connection."""


class TracedAttempt(Protocol):
    """The trace of one attempt."""

    @property
    def traceparent(self) -> bytes:
        """The header that goes along."""
        ...


class AttemptTraces(Protocol):
    """Where attempts are traced."""

    def begin(self, event_id: str) -> TracedAttempt: ...

    def end(
        self, attempt: Any, *, endpoint: str, event_id: str, event_type: str, number: int, error: str | None,
        status: int | None, began_ms: int, elapsed_ms: float,
    ) -> None: ...  # fmt: skip


class DeliveryWorker:
    """One POST in flight per lane. Parked events follow the same path, outside their lanes."""

    def __init__(
        self,
        state: DispatcherState,
        reader: LaneReader,
        commits: Commits,
        *,
        clock: Clock,
        metrics: DeliveryMetrics,
        dice: Callable[[], float],
        traces: AttemptTraces | None,
    ) -> None:
        self._traces = traces
        self._state, self._reader, self._commits = state, reader, commits
        self._clock, self._metrics, self._dice = clock, metrics, dice
        self._projections = Projections()

    async def run(self, endpoint: EndpointRuntime) -> None:
        """Run one of the endpoint's workers until it is cancelled or removed."""
        admission, ready = endpoint.admission, endpoint.ready
        while (work := await ready.get()) is not None:
            self._state.refill(endpoint)
            if work.phase is not Phase.READY:  # it was dropped during the wait
                continue
            permit = admission.try_acquire() or await admission.acquire()
            if permit is None:
                self._refused(endpoint, work)
                continue
            try:
                if work.phase is Phase.READY:
                    await self._deliver(endpoint, work, permit)
            finally:
                admission.release(permit)
            self._state.refill(endpoint)  # it may be the last one that waited

    def _refused(self, endpoint: EndpointRuntime, work: Work) -> None:
        if work.phase is Phase.READY:
            work.phase = Phase.IDLE
            self._state.progressed.set()
            self._state.withdraw(endpoint)

    async def _deliver(self, endpoint: EndpointRuntime, work: Work, permit: Permit) -> None:
        """Send the head, decide what follows from the outcome, and commit that."""
        now_ms, connection = self._clock.now_ms(), endpoint.connection
        if not outlasts_attempt(work.lease_until, connection.route.timeout, now_ms):
            self._state.lapse(work)
            return
        record, skipped, outdated = work.head(now_ms)
        if skipped:
            self._metrics.skipped(endpoint.name, skipped, outdated)
        if record is None:
            self._commits.skip(work)
            return
        interim = record.delivery is Delivery.LATEST
        if interim and self._reader.catch_up_first(work):
            return
        work.phase = Phase.SENDING
        with connection:
            trace = None if self._traces is None else self._traces.begin(record.id)
            post = self._post(connection, record, work, now_ms, trace)
            outcome = await (_preemptible(post, work) if interim else post)
        over_ms = self._clock.now_ms()
        arrived = isinstance(outcome, Delivered) and not work.resend
        self._metrics.attempted(endpoint.name, outcome, over_ms - record.emitted_at if arrived else None)
        if self._traces is not None:
            self._trace(self._traces, trace, endpoint.name, record, work.attempts + 1, outcome, now_ms)
        event = work.lane_id, record.sequence
        blame = self._record_outcome(endpoint, connection, permit, event, record, outcome, now_ms, over_ms)
        if work.phase is not Phase.SENDING:
            # the lease expired during the attempt, and a newer claim of ours continues from the log's cursor
            self._metrics.fenced.inc()
            return
        verdict, number = self._decide(endpoint, work, connection, blame, record, outcome, over_ms), work.attempts + 1
        was_parked = not (work.in_order or work.resend)
        log_attempt(connection.route.name, record, outcome, verdict, number=number, now_ms=over_ms, parked=was_parked)
        tries = tries_of(work.lane_id, number, record, outcome, now_ms)
        self._commits.commit(work, work.conclude(record, verdict, tries, over_ms, outcome.reason))

    def _post(
        self, connection: Connection, record: Record, work: Work, now_ms: int, trace: TracedAttempt | None
    ) -> Awaitable[Outcome]:
        body = self._projections.of(record, connection.route.shape)
        headers = connection.route.headers(record, body, work.previous, now_ms)
        if work.resend:
            headers.append(RESENT)
        if trace is not None:
            # in place of one from the configuration, which would be the same for every event
            headers = [header for header in headers if header[0] != b"traceparent"]
            headers.append((b"traceparent", trace.traceparent))
        return connection.post(headers, body)

    @staticmethod
    def _trace(
        traces: AttemptTraces, trace: TracedAttempt | None, endpoint: str, record: Record, number: int,
        outcome: Outcome, began_ms: int,
    ) -> None:  # fmt: skip
        traces.end(
            trace,
            endpoint=endpoint,
            event_id=record.id,
            event_type=record.type,
            number=number,
            error=None if isinstance(outcome, Delivered) else outcome.stage,
            status=outcome.status,
            began_ms=began_ms,
            elapsed_ms=outcome.elapsed_ms,
        )

    def _record_outcome(
        self, endpoint: EndpointRuntime, connection: Connection, permit: Permit, event: tuple[int, int], record: Record,
        outcome: Outcome, began_ms: int, now_ms: int,
    ) -> Blame:  # fmt: skip
        best_effort = record.delivery is Delivery.LATEST
        blame = endpoint.record_outcome(
            connection, permit, outcome, event, best_effort=best_effort, began_ms=began_ms, now_ms=now_ms
        )
        if endpoint.admission.shut:
            self._state.withdraw(endpoint)
        if endpoint.condition.recovery is not None:
            self._state.request_claim()
        return blame

    def _decide(
        self, endpoint: EndpointRuntime, work: Work, connection: Connection, blame: Blame, record: Record,
        outcome: Outcome, now_ms: int,
    ) -> Verdict:  # fmt: skip
        config = connection.route.config
        verdict = decide(
            outcome,
            attempts=work.attempts,
            failing_since=work.failing_since,
            now_ms=now_ms,
            retry=config.retry,
            parks=config.order == "park" and work.in_order,
            best_effort=record.delivery is Delivery.LATEST,
            blame=blame,
            rest_ms=round(config.breaker.rest.total_seconds() * 1000) if config.breaker else REST_MS,
            dice=self._dice,
        )
        if isinstance(verdict, Disable) and connection is endpoint.connection:
            endpoint.disable("gone")
            self._state.withdraw(endpoint)
        self._metrics.decided(endpoint.name, result_of(verdict))
        return verdict


async def _preemptible(post: Awaitable[Outcome], work: Work) -> Outcome:
    """Return the outcome of an interim's attempt, aborted if it delays a durable event."""
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    try:
        async with asyncio.timeout(None) as limit:
            work.abort_interim = lambda: limit.reschedule(loop.time() + INTERIM_LIMIT_S)
            work.expedite()
            return await post
    except TimeoutError:
        return Failed("timeout", (time.perf_counter() - began) * 1000, detail="broken off for what waited behind it")
    finally:
        work.abort_interim = None
