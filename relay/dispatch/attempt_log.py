"""One wide log record per attempt. No body, no identity, no URL."""

import logging

from relay.dispatch.lane import HeldLane
from relay.dispatch.outcome import Delivered, Failed, Fault, Outcome
from relay.dispatch.policy import RetryAt, Verdict
from relay.outbox.records import Record

log = logging.getLogger("relay.dispatch.attempt")


def log_attempt(lane: HeldLane, record: Record, outcome: Outcome, verdict: Verdict) -> None:
    """INFO where it was delivered, WARNING where it was not."""
    level = logging.INFO if isinstance(outcome, Delivered) else logging.WARNING
    if not log.isEnabledFor(level):
        return
    match outcome:
        case Delivered(status=status):
            stage, what = "ok", "delivered"
        case Failed(stage=stage, status=status):
            what = outcome.reason
        case Fault(detail=detail):
            stage, status, what = "fault", None, f"our own fault: {detail}"
    log.log(
        level,
        "%s to %s: %s",
        record.type,
        lane.route.name,
        what,
        extra={
            "endpoint": lane.route.name,
            "stream": lane.tail.number,
            "sequence": record.sequence,
            "event_id": record.id,
            "event_type": record.type,
            "attempt": lane.attempts + 1,
            "stage": stage,
            "status": status,
            "elapsed_ms": round(outcome.elapsed_ms, 1),
            "verdict": type(verdict).__name__,
            "retry_at": verdict.at if isinstance(verdict, RetryAt) else None,
        },
    )
