"""The workers of an endpoint: take a ready lane, send its head, settle, and on to the next lane."""

import asyncio
import functools
import logging
import random
from collections.abc import Callable

from relay.clock import Clock
from relay.dispatch.attempt_log import log_attempt
from relay.dispatch.feed import Feed
from relay.dispatch.guard import Guard
from relay.dispatch.holdings import Holdings
from relay.dispatch.lane import HeldLane, Phase
from relay.dispatch.leases import outlasts_attempt
from relay.dispatch.outcome import Delivered, Failed, Fault, Outcome
from relay.dispatch.policy import Dead, RetryAt, Settle, Verdict, decide
from relay.dispatch.projection import Projections
from relay.dispatch.route import Route
from relay.dispatch.stats import Stats
from relay.dispatch.store import LaneStore
from relay.dispatch.transport import Transport
from relay.errors import Fenced, OutboxError
from relay.events.envelope import Delivery
from relay.outbox.records import Attempt, DeadLetter, Record, Settlement

log = logging.getLogger(__name__)


class Sending:
    """One POST in flight per lane, and the next one only after the log has committed what became of it."""

    def __init__(
        self,
        store: LaneStore,
        holdings: Holdings,
        feed: Feed,
        transport: Transport,
        guard: Guard,
        *,
        clock: Clock,
        stats: Stats,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._holdings, self._feed, self._transport = store, holdings, feed, transport
        self._clock, self._stats, self._dice = clock, stats, dice
        self._projections = Projections()
        self.outstanding: set[asyncio.Future[None]] = set()
        """Settlements on their way to the log."""
        self._on_settled = guard(self._settled)

    async def work(self, route: Route) -> None:
        """One of the endpoint's workers. Runs until it is cancelled."""
        ready = self._holdings.ready[route.name]
        while True:
            lane = await ready.get()
            if lane.phase is Phase.READY:  # else it was dropped while it waited
                await self._serve(lane)

    def settle(self, lane: HeldLane, settlement: Settlement) -> None:
        """Have it committed; the lane goes on when it is."""
        lane.phase, lane.pending = Phase.SETTLING, settlement
        settled = asyncio.ensure_future(self._store.settle(settlement))
        self.outstanding.add(settled)
        settled.add_done_callback(functools.partial(self._on_settled, lane))

    async def _serve(self, lane: HeldLane) -> None:
        now_ms = self._clock.now_ms()
        if not outlasts_attempt(lane, now_ms):
            # the process stood still, or leases cannot be renewed: nothing is sent, and the sweep lets the lane go
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
        route = lane.route
        body = self._projections.of(record, route.include)
        headers = route.headers(record, body, lane.last_sent, now_ms)
        outcome = await self._transport.post(route.url, headers, body, route.timeout)
        if lane.phase is Phase.SENDING:
            self._conclude(lane, record, outcome, now_ms)
        else:  # the lease ran out under way, and a newer claim of ours goes on from the log's cursor
            self._stats.fenced += 1

    def _conclude(self, lane: HeldLane, record: Record, outcome: Outcome, sent_at: int) -> None:
        verdict = decide(
            outcome,
            attempts=lane.attempts,
            now_ms=self._clock.now_ms(),
            retry=lane.route.retry,
            once=record.delivery is Delivery.LATEST,
            dice=self._dice,
        )
        log_attempt(lane, record, outcome, verdict)
        self._count(outcome, verdict)
        tries = _tries(lane, record, outcome, sent_at)
        dead: DeadLetter | None = None
        next_at: int | None = None
        match verdict:
            case Settle(delivered=delivered):
                lane.pass_over(record)
                if delivered:
                    lane.last_sent = record.sequence
            case RetryAt(at=next_at, attempts=attempts):
                lane.attempts = attempts
            case Dead(attempts=attempts, reason=reason):
                # counted as sent, so that the next event's relay-previous-sequence shows the receiver the hole
                lane.pass_over(record)
                lane.last_sent = record.sequence
                dead = DeadLetter(record.sequence, attempts, reason)
        self.settle(
            lane,
            Settlement(lane.id, lane.fence, lane.position, lane.last_sent, lane.attempts, next_at, tries, dead),
        )

    def _count(self, outcome: Outcome, verdict: Verdict) -> None:
        stats = self._stats
        if isinstance(outcome, Fault):
            stats.faults += 1
        match verdict:
            case Settle(delivered=True):
                stats.delivered += 1
            case Settle():
                stats.skipped += 1
            case RetryAt():
                stats.retried += 1
            case Dead():
                stats.dead += 1

    def _settled(self, lane: HeldLane, settled: asyncio.Future[None]) -> None:
        self.outstanding.discard(settled)
        if lane.phase is not Phase.SETTLING:
            return  # dropped meanwhile: a newer claim of ours goes on from the log's cursor
        pending = lane.pending
        assert pending is not None  # noqa: S101 - what SETTLING means
        if settled.cancelled():
            lane.phase = Phase.UNSETTLED
            return
        match settled.exception():
            case None:
                lane.settled, lane.pending = pending.cursor, None
                if pending.next_at is not None:
                    self._holdings.rest(lane, pending.next_at)
                    return
                lane.phase = Phase.IDLE
                self._feed.kick(lane)
                if lane.phase is Phase.IDLE:
                    self._holdings.stirred.set()
            case Fenced():
                self._stats.fenced += 1
                self._holdings.drop(lane)
            case OutboxError() as error:
                log.error("a delivery cannot be settled: %s", error, extra={"stream": lane.tail.number})
                lane.phase = Phase.UNSETTLED
                self._holdings.stirred.set()
            case bug:
                raise bug


def _tries(lane: HeldLane, record: Record, outcome: Outcome, sent_at: int) -> tuple[Attempt, ...]:
    """The attempt for the record; none for a fault of our own."""
    match outcome:
        case Delivered(status=status):
            stage = "ok"
        case Failed(stage=stage, status=status):
            pass
        case Fault():
            return ()
    return (Attempt(lane.id, record.sequence, lane.attempts + 1, sent_at, stage, status, outcome.elapsed_ms),)
