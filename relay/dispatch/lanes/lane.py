"""A lane held by this dispatcher: its state, and which event comes next. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING

from relay.dispatch.lanes.stream_tail import StreamTail
from relay.dispatch.policy import Dead, Disable, Park, RetryAt, Settle, Verdict
from relay.events.envelope import Delivery
from relay.outbox.records import Attempt, DeadLetter, Lane, Parking, Record, Settlement

if TYPE_CHECKING:
    from relay.dispatch.endpoint.runtime import Destination


class Phase(Enum):
    """What a lane is busy with. It does one thing at a time, which preserves its order."""

    IDLE = auto()
    """Nothing to send, as far as is known."""
    READING = auto()
    """Catching up by a read of its own."""
    READY = auto()
    """In its endpoint's queue."""
    SENDING = auto()
    SETTLING = auto()
    """The settlement is being committed to the log."""
    UNSETTLED = auto()
    """The log refused the settlement; the sweep tries again."""
    GONE = auto()
    """No longer held."""


class HeldLane:
    """The claim and everything since. ``position`` runs ahead of the log's cursor over skipped events."""

    __slots__ = (
        "_about", "_ahead", "abort_interim", "attempts", "destination", "failing_since", "fence", "flush_commit", "id",
        "last_sent", "lease_until", "pending", "phase", "position", "settled", "tail", "used_at", "wanted",
    )  # fmt: skip

    def __init__(self, lane: Lane, destination: Destination, tail: StreamTail, now_ms: int) -> None:
        self.id, self.fence, self.lease_until = lane.id, lane.fence, lane.lease_until
        self.last_sent, self.attempts, self.failing_since = lane.last_sent, lane.attempts, lane.failing_since
        self.destination, self.tail = destination, tail
        self._about = lane.room, lane.participant
        self.position = lane.cursor
        self.settled = lane.cursor
        """The cursor as the log has it."""
        self.used_at = now_ms
        """When it last had something to send, or was claimed."""
        self.subscribe()
        self.phase = Phase.IDLE
        self.pending: Settlement | None = None
        """The pending settlement, from the outcome until the commit."""
        self.abort_interim: Callable[[], None] | None = None
        """Limits the attempt in flight, if that sends an interim: called once a durable event waits behind it."""
        self.flush_commit: Callable[[], None] | None = None
        """Commits a batched settlement at once: called once any event waits for it."""
        self._ahead: deque[Record] = deque()

    def subscribe(self) -> None:
        """Check whether the endpoint's current configuration subscribes to this stream."""
        self.wanted = self.destination.route.subscription.wants_stream(*self._about)

    def head(self, now_ms: int) -> Record | None:
        """The next event to send; skips events that are not sent. None if nothing more has been read.

        Evaluated at the moment of sending, so that an interim superseded meanwhile is not sent.
        """
        while (record := self._next()) is not None:
            if self._to_send(record, now_ms):
                return record
            self.pass_over(record)
        return None

    def has_next(self) -> bool:
        """Whether an event after the position has been read, to be sent or skipped."""
        return self._next() is not None

    def pass_over(self, record: Record) -> None:
        """Finish the event, with any result: the next one has no failed attempts yet."""
        self.position = record.sequence
        self.attempts, self.failing_since = 0, None

    def conclude(self, record: Record, verdict: Verdict, tries: tuple[Attempt, ...], now_ms: int) -> Settlement:
        """Apply the decision on the head; returns the settlement for the log."""
        dead: DeadLetter | None = None
        parked: Parking | None = None
        next_at: int | None = None
        failed_at: int | None = None
        outage = False
        match verdict:
            case Settle(delivered=delivered):
                self.pass_over(record)
                if delivered:
                    self.last_sent = record.sequence
            case RetryAt(at=next_at, outage=outage):
                self.attempts, self.failing_since = verdict.attempts, verdict.failing_since
                failed_at = None if verdict.asked else now_ms
            case Disable():
                next_at = now_ms
            # both count as sent, so that the next event's relay-previous-sequence shows the receiver the gap
            case Park(retry_at=retry_at, attempts=attempts, reason=reason):
                failed = None if verdict.asked else now_ms
                parked = Parking(record.sequence, attempts, reason, self.last_sent, retry_at, failed, verdict.outage)
                self.pass_over(record)
                self.last_sent = record.sequence
            case Dead(attempts=attempts, reason=reason):
                dead = DeadLetter(record.sequence, attempts, reason, self.last_sent)
                self.pass_over(record)
                self.last_sent = record.sequence
        return Settlement(
            self.id, self.fence, self.position, self.last_sent, self.attempts, next_at, tries, dead, parked,
            self.failing_since, failed_at, outage,
        )  # fmt: skip

    def hurry(self) -> None:
        """Shorten the current step if an event waits that must not wait for it."""
        if self.abort_interim is not None and self._durable_waits():
            self.abort_interim()
            self.abort_interim = None
        if self.flush_commit is not None and self.may_go_on():
            self.flush_commit()
            self.flush_commit = None

    def behind_tail(self) -> bool:
        """Whether the next event is older than the shared tail."""
        return self.position < self.tail.base

    def hungry(self) -> bool:
        """Whether the log may hold more that has not been read."""
        return self.behind_tail() or self.tail.more

    def may_go_on(self) -> bool:
        """Whether anything may stand after the position: to be sent, skipped or read."""
        return self.has_next() or self.hungry()

    def caught_up(self, records: Iterable[Record]) -> None:
        """Add the result of this lane's own read. An empty result means that events up to the shared tail were
        purged."""
        self._ahead.extend(records)
        if not self._ahead:
            self.position = max(self.position, self.tail.base)
        for record in self._ahead:
            self.tail.note(record)

    def key(self) -> tuple[int, int]:
        """(lane, fence), the key that the log uses."""
        return self.id, self.fence

    def _next(self) -> Record | None:
        while self._ahead:
            if self._ahead[0].sequence > self.position:
                return self._ahead[0]
            self._ahead.popleft()
        return self.tail.get(self.position + 1)

    def _durable_waits(self) -> bool:
        """Whether a durable event is known behind the one that is being sent."""
        return any(map(self._is_durable, range(self.position + 2, self.tail.end + 1)))

    def _is_durable(self, sequence: int) -> bool:
        record = self.tail.get(sequence)
        return (
            record is not None
            and record.delivery is not Delivery.LATEST
            and self.destination.route.subscription.wants_type(record.type)
        )

    def _to_send(self, record: Record, now_ms: int) -> bool:
        route = self.destination.route
        if not self.wanted or not route.subscription.wants_type(record.type):
            return False
        if record.expires_at is None:
            return True
        # 0: the body was removed, and nothing is left to send
        if record.expires_at == 0 or now_ms - record.emitted_at >= route.endpoint.interim_ttl.total_seconds() * 1000:
            return False
        return not self.tail.superseded(record)
