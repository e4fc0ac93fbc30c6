"""What this dispatcher holds: lanes, each with its next event, and parked events, sent separately. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from relay.dispatch.endpoint.runtime import EndpointRuntime
from relay.dispatch.policy import Dead, Disable, Park, RetryAt, Settle, Verdict
from relay.dispatch.stream_tail import StreamTail
from relay.dispatch.work import Phase, Work
from relay.events.envelope import Delivery
from relay.outbox.records import Attempt, DeadLetter, Lane, ParkedEvent, ParkedSettlement, Parking, Record, Settlement


class HeldLane(Work):
    """A claimed lane. ``position`` runs ahead of the log's cursor over skipped events."""

    __slots__ = (
        "_about", "_ahead", "cursor", "endpoint", "fence", "id", "last_sent", "position", "subscribed", "tail",
        "used_at",
    )  # fmt: skip

    in_order, resend = True, False

    def __init__(self, lane: Lane, endpoint: EndpointRuntime, tail: StreamTail, now_ms: int) -> None:
        super().__init__(
            Phase.IDLE, attempts=lane.attempts, failing_since=lane.failing_since, lease_until=lane.lease_until
        )
        self.id, self.fence, self.last_sent = lane.id, lane.fence, lane.last_sent
        self.endpoint, self.tail = endpoint, tail
        self._about = lane.room, lane.participant
        self.position = lane.cursor
        self.cursor = lane.cursor
        """The cursor as the log has it."""
        self.used_at = now_ms
        """When it last had something to send, or was claimed."""
        self.subscribe()
        self._ahead: deque[Record] = deque()

    @property
    def lane_id(self) -> int:
        return self.id

    @property
    def previous(self) -> int:
        return self.last_sent

    def subscribe(self) -> None:
        """Check whether the endpoint's current configuration subscribes to this stream."""
        self.subscribed = self.endpoint.route.subscription.wants_stream(*self._about)

    def head(self, now_ms: int) -> tuple[Record | None, int, int]:
        """The next event to send, and how many were skipped; None if nothing more has been read.

        Evaluated at the moment of sending, so that an interim superseded meanwhile is not sent.
        """
        before, outdated = self.position, 0
        while (record := self._next()) is not None:
            if self._to_send(record, now_ms):
                self.used_at = now_ms
                return record, self.position - before, outdated
            outdated += self._subscribes(record)
            self.advance(record)
        return None, self.position - before, outdated

    def has_next(self) -> bool:
        """Whether an event after the position has been read, to be sent or skipped."""
        return self._next() is not None

    def advance(self, record: Record) -> None:
        """Finish the event, with any result: the next one has no failed attempts yet."""
        self.position = record.sequence
        self.attempts, self.failing_since = 0, None

    def conclude(
        self, record: Record, verdict: Verdict, tries: tuple[Attempt, ...], now_ms: int, reason: str = ""
    ) -> Settlement:
        dead: DeadLetter | None = None
        parked: Parking | None = None
        next_at: int | None = None
        failed_at: int | None = None
        outage = False
        match verdict:
            case Settle(delivered=delivered):
                self.advance(record)
                if delivered:
                    self.last_sent = record.sequence
            case RetryAt(at=next_at, outage=outage):
                self.attempts, self.failing_since = verdict.attempts, verdict.failing_since
                failed_at = None if verdict.asked else now_ms
            case Disable():
                next_at = now_ms
            # both count as sent, so that the next event's relay-previous-sequence shows the receiver the gap
            case Park(retry_at=retry_at, attempts=attempts):
                failed = None if verdict.asked else now_ms
                parked = Parking(
                    record.sequence, attempts, verdict.reason, self.last_sent, retry_at, failed, verdict.outage
                )
                self.advance(record)
                self.last_sent = record.sequence
            case Dead(attempts=attempts):
                dead = DeadLetter(record.sequence, attempts, verdict.reason, self.last_sent)
                self.advance(record)
                self.last_sent = record.sequence
        return Settlement(
            self.id, self.fence, self.position, self.last_sent, self.attempts, next_at, tries, dead, parked,
            self.failing_since, failed_at, outage,
        )  # fmt: skip

    def committed(self) -> int | None:
        """The log has the pending settlement. Returns when the head is retried, if the lane waits for that."""
        settled, self.pending = self.pending, None
        assert isinstance(settled, Settlement)  # noqa: S101 - what conclude has made
        self.cursor = settled.cursor
        return settled.next_at

    def release(self, now_ms: int) -> Settlement | None:
        """Move the log's cursor past events that were skipped."""
        if self.position <= self.cursor:
            return None
        return Settlement(self.id, self.fence, self.position, self.last_sent, self.attempts)

    def is_released_by_commit(self) -> bool:
        """Whether the pending settlement has a retry time, which releases the lane."""
        return isinstance(self.pending, Settlement) and bool(self.pending.next_at)

    def behind_tail(self) -> bool:
        """Whether the next event is older than the shared tail."""
        return self.position < self.tail.base

    def may_have_unread(self) -> bool:
        """Whether the log may hold more that has not been read."""
        return self.behind_tail() or self.tail.more

    def durable_waits(self) -> bool:
        """Whether a durable event is known behind the one that is being sent."""
        return any(map(self._is_durable, range(self.position + 2, self.tail.end + 1)))

    def may_have_more(self) -> bool:
        """Whether any event may follow the position: to be sent, skipped or read."""
        return self.has_next() or self.may_have_unread()

    def caught_up(self, records: Iterable[Record]) -> None:
        """Add the result of this lane's own read. An empty result means that events up to the shared tail were
        purged."""
        self._ahead.extend(records)
        if not self._ahead:
            self.position = max(self.position, self.tail.base)
        for record in self._ahead:
            self.tail.note(record)

    def is_own(self) -> bool:
        """Whether it is in this dispatcher's share."""
        return self.endpoint.fleet_share.owns(self.tail.number)

    def key(self) -> tuple[int, int]:
        """(lane, fence), the key that the log uses."""
        return self.id, self.fence

    def _next(self) -> Record | None:
        while self._ahead:
            if self._ahead[0].sequence > self.position:
                return self._ahead[0]
            self._ahead.popleft()
        return self.tail.get(self.position + 1)

    def _is_durable(self, sequence: int) -> bool:
        record = self.tail.get(sequence)
        return (
            record is not None
            and record.delivery is not Delivery.LATEST
            and self.endpoint.route.subscription.wants_type(record.type)
        )

    def _subscribes(self, record: Record) -> bool:
        return self.subscribed and self.endpoint.route.subscription.wants_type(record.type)

    def _to_send(self, record: Record, now_ms: int) -> bool:
        if not self._subscribes(record):
            return False
        if record.expires_at is None:
            return True
        config = self.endpoint.route.config
        # 0: the body was removed, and nothing is left to send
        if record.expires_at == 0 or now_ms - record.emitted_at >= config.interim_ttl.total_seconds() * 1000:
            return False
        return not self.tail.superseded(record)


class HeldParked(Work):
    """A claimed parked event: it has left its lane. It is ready, sending, committing, uncommitted or gone."""

    __slots__ = ("claim", "endpoint", "resend")

    in_order = False

    def __init__(self, claim: ParkedEvent, endpoint: EndpointRuntime) -> None:
        # since when it fails does not matter: a parked event cannot be parked again
        super().__init__(Phase.READY, attempts=claim.attempts, failing_since=None, lease_until=claim.lease_until)
        self.claim, self.endpoint, self.resend = claim, endpoint, claim.resend is not None

    @property
    def lane_id(self) -> int:
        return self.claim.lane

    @property
    def previous(self) -> int:
        return self.claim.previous

    def key(self) -> tuple[int, int, int]:
        """(lane, sequence, resend or 0): its identity, whichever dispatcher holds it."""
        return self.claim.lane, self.claim.record.sequence, self.claim.resend or 0

    def is_own(self) -> bool:
        """Whether its stream is in this dispatcher's share."""
        return self.endpoint.fleet_share.owns(self.claim.stream)

    def head(self, now_ms: int) -> tuple[Record | None, int, int]:
        """The event; skipped if the endpoint no longer subscribes to it."""
        claim, subscription = self.claim, self.endpoint.route.subscription
        if subscription.wants_type(claim.record.type) and subscription.wants_stream(claim.room, claim.participant):
            return claim.record, 0, 0
        return None, 1, 0

    def done(self, tries: tuple[Attempt, ...] = ()) -> ParkedSettlement:
        """The event was delivered, or is no longer subscribed to."""
        claim = self.claim
        return ParkedSettlement(
            claim.lane, claim.record.sequence, claim.fence, claim.attempts, tries=tries, resend=claim.resend
        )

    def release(self, now_ms: int) -> ParkedSettlement:
        """Make it due again, with its attempts unchanged."""
        return self._again(now_ms)

    def may_have_more(self) -> bool:
        return False

    def durable_waits(self) -> bool:
        return False

    def conclude(
        self, record: Record, verdict: Verdict, tries: tuple[Attempt, ...], now_ms: int, reason: str = ""
    ) -> ParkedSettlement:
        match verdict:
            case Settle():
                return self.done(tries)
            case RetryAt(at=at, attempts=attempts) | Park(retry_at=at, attempts=attempts):
                failed_at = None if verdict.asked else now_ms
                again = self._again(at, tries, reason)
                return replace(again, attempts=attempts, failed_at=failed_at, outage=verdict.outage)
            case Disable():
                return self._again(now_ms, tries, reason)
            case Dead(attempts=attempts):
                dead = DeadLetter(record.sequence, attempts, reason, self.claim.previous)
                return replace(self.done(tries), attempts=attempts, dead=dead)

    def _again(self, at: int, tries: tuple[Attempt, ...] = (), reason: str = "") -> ParkedSettlement:
        """Release it until then, with its attempts unchanged."""
        claim = self.claim
        return ParkedSettlement(
            claim.lane, claim.record.sequence, claim.fence, claim.attempts, retry_at=at, tries=tries, reason=reason,
            resend=claim.resend,
        )  # fmt: skip
