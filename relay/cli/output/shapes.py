"""The operator commands' ``--json`` output. Times are ISO 8601 in UTC; docs/reference/commands.md shows each shape."""

import json
import sys
from datetime import datetime
from typing import Any

from relay.clock import instant
from relay.outbox.operator.views import AttemptView, DeliveryView, EndpointView, EventView
from relay.telemetry.printable import ascii_json


def write(document: object) -> None:
    """One JSON document, indented, in ASCII."""
    sys.stdout.write(ascii_json(document, indent=2) + "\n")


def write_line(document: object) -> None:
    """One JSON document on one line, flushed at once."""
    sys.stdout.write(ascii_json(document) + "\n")
    sys.stdout.flush()


def endpoint_shape(view: EndpointView, state: str) -> dict[str, Any]:
    return {
        "name": view.state.name,
        "state": state,
        "disabled_because": view.state.disabled_because,
        "disabled_at": iso(view.state.disabled_at),
        "failing_since": iso(view.state.failing_since),
        "last_success": iso(view.state.succeeded_at),
        "last_failure": iso(view.state.failed_at),
        "last_error": view.state.last_error,
        "resting_until": iso(view.state.resting_until) if state == "resting" else None,
        "pending": view.pending,
        "oldest_pending": iso(view.oldest_pending),
        "retrying": view.retrying,
        "parked": view.parked,
        "dead": view.dead,
        "resending": view.resending,
    }


def delivery_shape(view: DeliveryView) -> dict[str, Any]:
    return {
        "endpoint": view.endpoint,
        "event_id": view.event_id,
        "state": view.state.value,
        "since": iso(view.at),
        "type": view.type,
        "room": view.room,
        "participant": view.participant,
        "stream_id": view.stream_id,
        "sequence": view.sequence,
        "attempts": view.attempts,
        "next_attempt": iso(view.next_at),
        "reason": view.reason,
        "last_failure": iso(view.failed_at),
    }


def attempt_shape(view: AttemptView) -> dict[str, Any]:
    return {
        "at": iso(view.at),
        "endpoint": view.endpoint,
        "event_id": view.event_id,
        "type": view.type,
        "number": view.number,
        "stage": view.stage,
        "status": view.status,
        "elapsed_ms": round(view.elapsed_ms, 1),
    }


def event_shape(view: EventView) -> dict[str, Any]:
    """``event`` is null if the body is gone: an expired interim, or a purged event."""
    return {
        "id": view.id,
        "type": view.type,
        "emitted_at": iso(view.emitted_at),
        "room": view.room,
        "participant": view.participant,
        "stream_id": view.stream_id,
        "sequence": view.sequence,
        "event": json.loads(view.body) if view.body else None,
    }


def iso(moment: int | None) -> str | None:
    """A wall time in epoch milliseconds as ``2026-11-21T10:15:05.482Z``."""
    return None if moment is None else _iso(instant(moment))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
