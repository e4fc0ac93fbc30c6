"""A parked event held by this dispatcher: it has left its lane, and is sent separately. Pure."""

from dataclasses import replace

from relay.dispatch.endpoint.runtime import EndpointRuntime
from relay.dispatch.policy import Dead, Disable, Park, RetryAt, Settle, Verdict
from relay.dispatch.work import Phase, Work
from relay.outbox.records import Attempt, DeadLetter, ParkedEvent, ParkedSettlement, Record


class HeldParked(Work):
    """The claim, and its phase: ready, sending, committing, uncommitted or gone. Its head is its only event."""

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
