"""One wide log record per attempt. No body, no identity, no URL."""

import logging

from relay.dispatch.outcome import Delivered, Failed, Fault, Outcome
from relay.dispatch.policy import Dead, Park, RetryAt, Verdict
from relay.events.envelope import Delivery
from relay.outbox.records import Record

log = logging.getLogger("relay.dispatch.attempt")
_operator = logging.getLogger("relay.dispatch")


def log_attempt(
    endpoint: str, stream: int, record: Record, outcome: Outcome, verdict: Verdict, *, number: int, aside: bool = False
) -> None:
    """DEBUG where it was delivered or is an interim, of which there is another soon; WARNING where it was not.

    ``aside`` marks an event that was parked before.
    """
    _tell_operator(endpoint, record, verdict)
    once = record.delivery is Delivery.LATEST
    level = logging.DEBUG if once or isinstance(outcome, Delivered) else logging.WARNING
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
        endpoint,
        what,
        extra={
            "endpoint": endpoint,
            "stream": stream,
            "sequence": record.sequence,
            "event_id": record.id,
            "event_type": record.type,
            "attempt": number,
            "stage": stage,
            "status": status,
            "elapsed_ms": round(outcome.elapsed_ms, 1),
            "verdict": type(verdict).__name__,
            "retry_at": _retry_at(verdict),
            "aside": aside,
        },
    )


def _retry_at(verdict: Verdict) -> int | None:
    match verdict:
        case RetryAt(at=at) | Park(retry_at=at):
            return at
        case _:
            return None


def _tell_operator(endpoint: str, record: Record, verdict: Verdict) -> None:
    """What somebody should look into: once for each event that does not arrive as it should."""
    match verdict:
        case Park(attempts=attempts, reason=reason):
            told = "%s for %s has failed %d times and is retried aside, those behind it go on: %s"
            _operator.warning(told, record.type, endpoint, attempts, reason, extra=_which(endpoint, record))
        case Dead(attempts=attempts, reason=reason):
            told = "%s for %s is given up on after %d attempts, and kept: %s"
            _operator.error(told, record.type, endpoint, attempts, reason, extra=_which(endpoint, record))
        case _:
            pass


def _which(endpoint: str, record: Record) -> dict[str, object]:
    return {"endpoint": endpoint, "event_id": record.id, "event_type": record.type, "sequence": record.sequence}
