"""What an attempt leaves behind: its record in the outbox, its result in the metrics, its log line."""

import logging

from relay.clock import instant, span
from relay.dispatch.http.outcome import Delivered, Fault, Outcome
from relay.dispatch.policy import Dead, Disable, Park, RetryAt, Settle, Verdict
from relay.events.envelope import Delivery
from relay.outbox.records import Attempt, Record
from relay.telemetry.printable import printable

log = logging.getLogger("relay.dispatch.attempt")


def tries_of(lane: int, number: int, record: Record, outcome: Outcome, sent_at: int) -> tuple[Attempt, ...]:
    """The attempt for the record; nothing for a fault of our own."""
    if isinstance(outcome, Fault):
        return ()
    answer, status = None if outcome.answer is None else _shown_answer(outcome.answer), outcome.status
    return (Attempt(lane, record.sequence, number, sent_at, outcome.stage, status, outcome.elapsed_ms, answer),)


def _shown_answer(content: bytes) -> str:
    """An answer's content as text that prints: it may be anything."""
    return printable(content.decode(errors="replace"), keep="\n\t")


def result_of(verdict: Verdict) -> str:
    """The verdict's name in the metrics."""
    match verdict:
        case Settle(delivered=True):
            return "delivered"
        case Settle():
            return "skipped"
        case RetryAt() | Disable():
            return "retried"
        case Park():
            return "parked"
        case Dead():
            return "dead"


def log_attempt(
    endpoint: str,
    record: Record,
    outcome: Outcome,
    verdict: Verdict,
    *,
    number: int,
    now_ms: int,
    parked: bool,
) -> None:
    """Log the attempt: DEBUG if it was delivered, or for an interim, since another follows soon; WARNING if it failed;
    ERROR if it was the last one. No body, no identity, no URL.

    ``parked`` marks an event that was already parked.
    """
    level = _level(record, outcome, verdict)
    if not log.isEnabledFor(level):
        return
    next_at = verdict.at if isinstance(verdict, RetryAt) else verdict.retry_at if isinstance(verdict, Park) else None
    log.log(
        level,
        "%s to %s: %s%s",
        record.type,
        endpoint,
        outcome.reason or "delivered",
        _consequence(record, verdict, number, now_ms),
        extra={
            "endpoint": endpoint,
            "event_id": record.id,
            "event_type": record.type,
            "attempt": number,
            "stage": outcome.stage,
            "status": outcome.status,
            "elapsed_ms": round(outcome.elapsed_ms, 1),
            "next_attempt": None if next_at is None else f"{instant(next_at):%Y-%m-%dT%H:%M:%SZ}",
            "parked": parked or isinstance(verdict, Park),
        },
    )


def _level(record: Record, outcome: Outcome, verdict: Verdict) -> int:
    if isinstance(outcome, Delivered):
        return logging.DEBUG
    if isinstance(verdict, Dead):
        return logging.ERROR
    return logging.DEBUG if record.delivery is Delivery.LATEST else logging.WARNING


def _consequence(record: Record, verdict: Verdict, number: int, now_ms: int) -> str:
    match verdict:
        case Settle(delivered=True):
            return ""
        case Settle():
            return "; an interim is not sent again"
        case RetryAt(at=at):
            return f"; next attempt in {span(max(0, at - now_ms))}"
        case Park(retry_at=at):
            later = f"next attempt in {span(max(0, at - now_ms))}"
            return f"; parked after {number} attempts: events behind it go on, {later}"
        case Dead():
            cure = f"`speech-relay deliveries retry {record.id}` sends it again"
            return f"; dead after {number} attempts: it is kept and not sent any more, {cure}"
        case Disable():
            return "; the endpoint says that it is gone, the event waits"
