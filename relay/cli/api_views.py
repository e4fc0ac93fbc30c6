"""Reads the answers of the HTTP API as the views that the log gives. Pure.

Each raises what a missing key, or a value of another kind, raises in Python: :mod:`relay.cli.api_relay` reports it.
"""

import json
from dataclasses import fields
from datetime import datetime
from typing import Any

from relay.clock import epoch_ms, instant
from relay.outbox.log.processes import ProcessState
from relay.outbox.operator.views import DeliveryState, DeliveryView, EndpointView, EventView
from relay.outbox.records import EndpointState


def process_state(found: dict[str, Any]) -> ProcessState:
    """A process of ``/v1/status``."""
    times = {key: epoch(found[key]) for key in ("started_at", "ready_at", "seen_at", "stopped_at")}
    given = {field.name: found[field.name] for field in fields(ProcessState)}
    return ProcessState(**given | times | {"endpoints": tuple(found["endpoints"])})


def epoch(text: str | None) -> int | None:
    """Milliseconds of a moment that the API names."""
    return None if text is None else epoch_ms(datetime.fromisoformat(text))


def iso(moment: int) -> str | None:
    """A moment in milliseconds, as the API takes it. None for 0: no limit."""
    return instant(moment).isoformat() if moment else None


def appended_view(event: dict[str, Any], text: str) -> EventView:
    """An event of ``/v1/events/stream``, and its JSON."""
    return EventView(
        id=event["id"],
        type=event["type"],
        stream_id=event["stream"]["id"],
        sequence=event["stream"]["sequence"],
        room=event["room"]["name"] if event.get("room") else "",
        participant=event["participant"]["identity"] if event.get("participant") else "",
        emitted_at=epoch(event["timing"]["emitted_at"] if event.get("timing") else event["timestamp"]) or 0,
        body=text.encode(),
    )


def endpoint_view(found: dict[str, Any]) -> EndpointView:
    """An endpoint of ``/v1/endpoints``."""
    state = EndpointState(
        name=found["name"],
        active=found["state"] not in ("new", "not in config"),
        disabled_at=epoch(found["disabled_at"]),
        disabled_because=found["disabled_because"],
        failing_since=epoch(found["failing_since"]),
        succeeded_at=epoch(found["last_success"]),
        failed_at=epoch(found["last_failure"]),
        last_error=found["last_error"],
        resting_until=epoch(found["resting_until"]),
        by_api=found["made_by"] is not None,
    )
    counts = {key: found[key] for key in ("pending", "retrying", "parked", "dead", "resending")}
    return EndpointView(
        state=state,
        oldest_pending=epoch(found["oldest_pending"]),
        more_pending=found["pending_at_least"],
        **counts,
    )


def delivery_view(found: dict[str, Any]) -> DeliveryView:
    """A delivery of ``/v1/deliveries``."""
    return DeliveryView(
        endpoint=found["endpoint"],
        state=DeliveryState(found["state"]),
        at=epoch(found["since"]) or 0,
        event_id=found["event_id"],
        type=found["type"],
        room=found["room"],
        participant=found["participant"],
        stream_id=found["stream_id"],
        sequence=found["sequence"],
        attempts=found["attempts"],
        next_at=epoch(found["next_attempt"]),
        reason=found["reason"],
        failed_at=epoch(found["last_failure"]),
    )


def event_view(found: dict[str, Any]) -> EventView:
    """An event of ``/v1/events``."""
    return EventView(
        id=found["id"],
        type=found["type"],
        stream_id=found["stream_id"],
        sequence=found["sequence"],
        room=found["room"],
        participant=found["participant"],
        emitted_at=epoch(found["emitted_at"]) or 0,
        body=b"" if found["event"] is None else json.dumps(found["event"]).encode(),
    )
