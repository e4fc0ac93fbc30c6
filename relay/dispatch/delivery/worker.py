"""The workers of an endpoint: take a lane or a parked event, pass admission, send, repeat."""

import random
from collections.abc import Awaitable, Callable, Sequence

from relay.clock import Clock
from relay.dispatch.admission.admission import Ticket
from relay.dispatch.delivery.attempt_log import log_attempt
from relay.dispatch.delivery.commit import Settling
from relay.dispatch.delivery.preemption import preemptible
from relay.dispatch.delivery.reader import Feed
from relay.dispatch.endpoint.connection import Link
from relay.dispatch.endpoint.health import Blame
from relay.dispatch.endpoint.runtime import Destination
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome
from relay.dispatch.lanes.lane import HeldLane, Phase
from relay.dispatch.lanes.leases import outlasts_attempt
from relay.dispatch.lanes.parked import HeldParked
from relay.dispatch.payload.projection import Projections
from relay.dispatch.policy import REST_MS, Dead, Disable, Park, RetryAt, Settle, Verdict, decide
from relay.dispatch.state import Holdings
from relay.dispatch.stats import Stats
from relay.events.envelope import Delivery
from relay.outbox.records import Attempt, Record

RESENT = ((b"relay-resend", b"true"),)
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
        while (held := await ready.get()) is not None:
            self._holdings.refill(destination)
            if held.phase is not Phase.READY:  # it was dropped during the wait
                continue
            ticket = gate.try_enter() or await gate.enter()
            if ticket is None:
                self._turned_away(held)
                continue
            try:
                if held.phase is not Phase.READY:
                    continue
                if isinstance(held, HeldLane):
                    await self._serve(held, ticket)
                else:
                    await self._serve_parked(held, ticket)
            finally:
                gate.leave(ticket)

    def _turned_away(self, held: HeldLane | HeldParked) -> None:
        if held.phase is Phase.READY:
            held.phase = Phase.IDLE
            self._holdings.stirred.set()
            self._holdings.withdraw(held.destination)

    async def _serve(self, lane: HeldLane, ticket: Ticket) -> None:
        now_ms = self._clock.now_ms()
        if not outlasts_attempt(lane, now_ms):
            # The process was suspended, or leases cannot be renewed: send nothing; the sweep releases the lane.
            lane.phase, lane.lease_until = Phase.IDLE, 0
            return
        before = lane.position
        record = lane.head(now_ms)
        self._stats.skipped += lane.position - before
        if record is None:
            lane.phase = Phase.IDLE
            self._feed.kick(lane)
            self._holdings.stirred.set()
            return
        if record.delivery is Delivery.LATEST and self._feed.catch_up_first(lane):
            return
        lane.phase, lane.used_at = Phase.SENDING, now_ms
        link = lane.destination.link
        with link:
            post = self._post(link, record, lane.last_sent, now_ms)
            outcome = await (preemptible(post, lane) if record.delivery is Delivery.LATEST else post)
        over_ms = self._clock.now_ms()
        event = lane.id, record.sequence
        blame = self._learn(lane.destination, link, ticket, event, record, outcome, now_ms, over_ms)
        if lane.phase is Phase.SENDING:
            verdict, number = self._decide(lane, link, blame, record, outcome, over_ms), lane.attempts + 1
            log_attempt(link.route.name, record, outcome, verdict, number=number, now_ms=over_ms)
            tries = _tries(lane.id, number, record, outcome, now_ms)
            self._settling.settle(lane, lane.conclude(record, verdict, tries, over_ms))
        else:  # the lease expired during the attempt, and a newer claim of ours continues from the log's cursor
            self._stats.fenced += 1

    async def _serve_parked(self, parked: HeldParked, ticket: Ticket) -> None:
        now_ms, claim = self._clock.now_ms(), parked.claim
        link = parked.destination.link
        if not outlasts_attempt(parked, now_ms):
            self._holdings.drop_parked(parked)
            return
        asked = link.route.subscription
        if not (asked.wants_type(claim.record.type) and asked.wants_stream(claim.room, claim.participant)):
            self._stats.skipped += 1
            self._settling.settle_parked(parked, parked.done())
            return
        parked.phase = Phase.SENDING
        with link:
            again = RESENT if claim.resend is not None else ()
            outcome = await self._post(link, claim.record, claim.previous, now_ms, again)
        over_ms = self._clock.now_ms()
        blame = self._learn(parked.destination, link, ticket, parked.key()[:2], claim.record, outcome, now_ms, over_ms)
        if parked.phase is not Phase.SENDING:
            self._stats.fenced += 1
            return
        verdict, number = self._decide(parked, link, blame, claim.record, outcome, over_ms), parked.attempts + 1
        was_parked = claim.resend is None
        log_attempt(link.route.name, claim.record, outcome, verdict, number=number, now_ms=over_ms, parked=was_parked)
        tries = _tries(claim.lane, number, claim.record, outcome, now_ms)
        self._settling.settle_parked(parked, parked.conclude(verdict, _reason(outcome), tries, over_ms))

    def _post(
        self, link: Link, record: Record, previous: int, now_ms: int, marks: Sequence[tuple[bytes, bytes]] = ()
    ) -> Awaitable[Outcome]:
        body = self._projections.of(record, link.route.shape)
        return link.post([*link.route.headers(record, body, previous, now_ms), *marks], body)

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
        self, held: HeldLane | HeldParked, link: Link, blame: Blame, record: Record, outcome: Outcome, now_ms: int
    ) -> Verdict:
        endpoint = link.route.endpoint
        verdict = decide(
            outcome,
            attempts=held.attempts,
            failing_since=held.failing_since,
            now_ms=now_ms,
            retry=endpoint.retry,
            parks=endpoint.order == "park" and isinstance(held, HeldLane),
            once=record.delivery is Delivery.LATEST,
            blame=blame,
            rest_ms=round(endpoint.breaker.rest.total_seconds() * 1000) if endpoint.breaker else REST_MS,
            dice=self._dice,
        )
        if isinstance(verdict, Disable) and link is held.destination.link:
            held.destination.disable("gone")
            self._holdings.withdraw(held.destination)
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
