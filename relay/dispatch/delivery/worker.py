"""The workers of an endpoint: take a lane or a parked event, pass admission, send, repeat."""

import random
from collections.abc import Awaitable, Callable

from relay.clock import Clock
from relay.dispatch.admission.admission import Ticket
from relay.dispatch.delivery.attempt_log import log_attempt
from relay.dispatch.delivery.commit import Settling
from relay.dispatch.delivery.preemption import preemptible
from relay.dispatch.delivery.reader import Feed
from relay.dispatch.endpoint.connection import Link
from relay.dispatch.endpoint.runtime import Destination
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome
from relay.dispatch.lanes.leases import outlasts_attempt
from relay.dispatch.payload.projection import Projections
from relay.dispatch.policy import REST_MS, Blame, Dead, Disable, Park, RetryAt, Settle, Verdict, decide
from relay.dispatch.state import Holdings
from relay.dispatch.stats import Stats
from relay.dispatch.work import Phase, Work
from relay.events.envelope import Delivery
from relay.outbox.records import Attempt, Record

RESENT = (b"relay-resend", b"true")
"""Marks an event that was delivered before and is sent again at an operator's request."""


class Sending:
    """One POST in flight per lane. Parked events follow the same path, outside their lanes."""

    def __init__(
        self,
        holdings: Holdings,
        feed: Feed,
        settling: Settling,
        *,
        clock: Clock,
        stats: Stats,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._holdings, self._feed, self._settling = holdings, feed, settling
        self._clock, self._stats, self._dice = clock, stats, dice
        self._projections = Projections()

    async def work(self, destination: Destination) -> None:
        """Run one of the endpoint's workers until it is cancelled or removed."""
        gate, ready = destination.gate, destination.ready
        while (work := await ready.get()) is not None:
            self._holdings.refill(destination)
            if work.phase is not Phase.READY:  # it was dropped during the wait
                continue
            ticket = gate.try_enter() or await gate.enter()
            if ticket is None:
                self._turned_away(destination, work)
                continue
            try:
                if work.phase is Phase.READY:
                    await self._deliver(destination, work, ticket)
            finally:
                gate.leave(ticket)

    def _turned_away(self, destination: Destination, work: Work) -> None:
        if work.phase is Phase.READY:
            work.phase = Phase.IDLE
            self._holdings.stirred.set()
            self._holdings.withdraw(destination)

    async def _deliver(self, destination: Destination, work: Work, ticket: Ticket) -> None:
        """Send the head, decide what follows from the outcome, and commit that."""
        now_ms, link = self._clock.now_ms(), destination.link
        if not outlasts_attempt(work.lease_until, link.route.timeout, now_ms):
            self._holdings.lapse(work)
            return
        record, skipped = work.head(now_ms)
        self._stats.skipped += skipped
        if record is None:
            self._settling.skip(work)
            return
        interim = record.delivery is Delivery.LATEST
        if interim and self._feed.catch_up_first(work):
            return
        work.phase = Phase.SENDING
        with link:
            post = self._post(link, record, work, now_ms)
            outcome = await (preemptible(post, work) if interim else post)
        over_ms = self._clock.now_ms()
        event = work.lane_id, record.sequence
        blame = self._learn(destination, link, ticket, event, record, outcome, now_ms, over_ms)
        if work.phase is not Phase.SENDING:
            # the lease expired during the attempt, and a newer claim of ours continues from the log's cursor
            self._stats.fenced += 1
            return
        verdict, number = self._decide(destination, work, link, blame, record, outcome, over_ms), work.attempts + 1
        was_parked = not (work.in_order or work.resend)
        log_attempt(link.route.name, record, outcome, verdict, number=number, now_ms=over_ms, parked=was_parked)
        tries = _tries(work.lane_id, number, record, outcome, now_ms)
        self._settling.commit(work, work.conclude(record, verdict, tries, over_ms, _reason(outcome)))

    def _post(self, link: Link, record: Record, work: Work, now_ms: int) -> Awaitable[Outcome]:
        body = self._projections.of(record, link.route.shape)
        headers = link.route.headers(record, body, work.previous, now_ms)
        if work.resend:
            headers.append(RESENT)
        return link.post(headers, body)

    def _learn(
        self, destination: Destination, link: Link, ticket: Ticket, event: tuple[int, int], record: Record,
        outcome: Outcome, began_ms: int, now_ms: int,
    ) -> Blame:  # fmt: skip
        once = record.delivery is Delivery.LATEST
        blame = destination.learn(link, ticket, outcome, event, once=once, began_ms=began_ms, now_ms=now_ms)
        if destination.gate.shut:
            self._holdings.withdraw(destination)
        if destination.condition.recovery is not None:
            self._holdings.want()
        return blame

    def _decide(
        self, destination: Destination, work: Work, link: Link, blame: Blame, record: Record, outcome: Outcome,
        now_ms: int,
    ) -> Verdict:  # fmt: skip
        endpoint = link.route.endpoint
        verdict = decide(
            outcome,
            attempts=work.attempts,
            failing_since=work.failing_since,
            now_ms=now_ms,
            retry=endpoint.retry,
            parks=endpoint.order == "park" and work.in_order,
            once=record.delivery is Delivery.LATEST,
            blame=blame,
            rest_ms=round(endpoint.breaker.rest.total_seconds() * 1000) if endpoint.breaker else REST_MS,
            dice=self._dice,
        )
        if isinstance(verdict, Disable) and link is destination.link:
            destination.disable("gone")
            self._holdings.withdraw(destination)
        self._count(outcome, verdict)
        return verdict

    def _count(self, outcome: Outcome, verdict: Verdict) -> None:
        stats = self._stats
        if isinstance(outcome, Fault):
            stats.faults += 1
        match verdict:
            case Settle(delivered=True):
                stats.delivered += 1
            case Settle():
                stats.skipped += 1
            case RetryAt() | Disable():
                stats.retried += 1
            case Park():
                stats.parked += 1
            case Dead():
                stats.dead += 1


def _tries(lane: int, number: int, record: Record, outcome: Outcome, sent_at: int) -> tuple[Attempt, ...]:
    """The attempt for the record; None for a fault of our own."""
    match outcome:
        case Delivered(status=status):
            stage = "ok"
        case Failed(stage=stage, status=status):
            pass
        case Fault():
            return ()
    return (Attempt(lane, record.sequence, number, sent_at, stage, status, outcome.elapsed_ms),)


def _reason(outcome: Outcome) -> str:
    match outcome:
        case Delivered():
            return ""
        case Failed():
            return outcome.reason
        case Fault(detail=detail):
            return f"our own fault: {detail}"
