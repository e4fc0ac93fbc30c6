"""A parked event held by this dispatcher: it has left its lane, and is sent separately. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from relay.dispatch.lanes.lane import Phase
from relay.dispatch.policy import Dead, Disable, Park, RetryAt, Settle, Verdict
from relay.outbox.records import Attempt, DeadLetter, ParkedEvent, ParkedSettlement

if TYPE_CHECKING:
    from relay.dispatch.endpoint.runtime import Destination


class HeldParked:
    """The claim, and its phase: ready, sending, settling, unsettled or gone."""

    __slots__ = ("attempts", "claim", "destination", "lease_until", "pending", "phase")

    failing_since: None = None
    """Not needed: a parked event cannot be parked again."""

    def __init__(self, claim: ParkedEvent, destination: Destination) -> None:
        self.claim, self.destination = claim, destination
        self.attempts, self.lease_until = claim.attempts, claim.lease_until
        self.phase = Phase.READY
        self.pending: ParkedSettlement | None = None
        """The pending settlement, from the outcome until the commit."""

    def key(self) -> tuple[int, int, int]:
        """(lane, sequence, resend or 0): its identity, whichever dispatcher holds it."""
        return self.claim.lane, self.claim.record.sequence, self.claim.resend or 0

    def done(self, tries: tuple[Attempt, ...] = ()) -> ParkedSettlement:
        """The event was delivered, or is no longer subscribed to."""
        claim = self.claim
        return ParkedSettlement(
            claim.lane, claim.record.sequence, claim.fence, claim.attempts, tries=tries, resend=claim.resend
        )

    def again(self, at: int, *, tries: tuple[Attempt, ...] = (), reason: str = "") -> ParkedSettlement:
        """Release it until then, with its attempts unchanged."""
        claim = self.claim
        return ParkedSettlement(
            claim.lane, claim.record.sequence, claim.fence, claim.attempts, retry_at=at, tries=tries, reason=reason,
            resend=claim.resend,
        )  # fmt: skip

    def conclude(self, verdict: Verdict, reason: str, tries: tuple[Attempt, ...], now_ms: int) -> ParkedSettlement:
        """Apply the decision; returns the settlement for the log. ``reason`` is why it failed."""
        match verdict:
            case Settle():
                return self.done(tries)
            case RetryAt(at=at, attempts=attempts) | Park(retry_at=at, attempts=attempts):
                failed_at = None if verdict.asked else now_ms
                again = self.again(at, tries=tries, reason=reason)
                return replace(again, attempts=attempts, failed_at=failed_at, outage=verdict.outage)
            case Disable():
                return self.again(now_ms, tries=tries, reason=reason)
            case Dead(attempts=attempts):
                claim = self.claim
                dead = DeadLetter(claim.record.sequence, attempts, reason, claim.previous)
                done = self.done(tries)
                return replace(done, attempts=attempts, dead=dead)
