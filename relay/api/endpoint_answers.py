"""The answers of /v1 about endpoints, as the OpenAPI document shows them."""

import json
from typing import Any

from relay.api.access import Viewer
from relay.api.answers import AnswerModel, Time, iso, iso_or_none
from relay.dispatch.http.outcome import Delivered, Fault, Outcome
from relay.outbox.operator.views import EndpointView
from relay.outbox.records import StoredApiEndpoint


class EndpointStatus(AnswerModel):
    name: str
    state: str
    """``enabled``, ``disabled``, ``resting``, ``new`` or ``not in config``."""
    disabled_because: str | None
    disabled_at: Time | None
    failing_since: Time | None
    last_success: Time | None
    last_failure: Time | None
    last_error: str | None
    resting_until: Time | None
    pending: int
    """Subscribed events that it has not received."""
    pending_at_least: bool
    """Whether more may be pending: of each endpoint, 10,000 events are looked at, and fewer on a tenant's page with
    more than ten."""
    oldest_pending: Time | None
    lag_ms: int | None
    """The age of the oldest pending event; null if none is pending."""
    retrying: int
    parked: int
    dead: int
    resending: int
    """Streams that are sent again."""
    tenant: str | None
    """Whose it is, if it was made over the API for a tenant."""
    made_by: str | None
    """The name of the token that made it over the API, empty if none was required. It is shown to operators; null for
    an endpoint of the configuration."""

    @classmethod
    def of(
        cls, view: EndpointView, state: str, now: int, viewer: Viewer, made: StoredApiEndpoint | None
    ) -> "EndpointStatus":
        """``made``: what the log has of it if it was made over the API."""
        known = view.state
        return cls(
            name=known.name,
            state=state,
            disabled_because=known.disabled_because,
            disabled_at=iso_or_none(known.disabled_at),
            failing_since=iso_or_none(known.failing_since),
            last_success=iso_or_none(known.succeeded_at),
            last_failure=iso_or_none(known.failed_at),
            last_error=viewer.reason(known.last_error),
            resting_until=iso_or_none(known.resting_until) if state == "resting" else None,
            pending=view.pending,
            pending_at_least=view.more_pending,
            oldest_pending=iso_or_none(view.oldest_pending),
            lag_ms=None if view.oldest_pending is None else max(0, now - view.oldest_pending),
            retrying=view.retrying,
            parked=view.parked,
            dead=view.dead,
            resending=view.resending,
            tenant=made and made.tenant,
            made_by=made.made_by if made and viewer.is_operator else None,
        )


class EndpointList(AnswerModel):
    endpoints: list[EndpointStatus]
    """By name."""
    next: str | None
    """The ``cursor`` of the next page."""


class MadeEndpoint(AnswerModel):
    """An endpoint that was made over the API."""

    name: str
    tenant: str | None
    options: dict[str, Any]
    """Those that differ from the defaults. Durations are in seconds; the values of headers are not shown."""
    rooms_at_most: list[str]
    """Globs: whatever its own ``rooms`` are, it gets these only."""
    made_at: Time
    made_by: str | None
    """The name of the token that made it, empty if none was required; it is shown to operators."""
    expires_at: Time | None
    replaced_by_configuration: bool
    """Whether an endpoint of the configuration has the same name: nothing is sent to this one meanwhile."""
    changed: bool = False
    """Whether this request has changed it."""
    secret: str | None = None
    """``whsec_…``, with which the receiver verifies. Shown once: when it is made, by PUT or by rotate."""

    @classmethod
    def of(
        cls,
        stored: StoredApiEndpoint,
        viewer: Viewer,
        *,
        replaced: bool,
        changed: bool = False,
        secret: str | None = None,
    ) -> "MadeEndpoint":
        options = json.loads(stored.options)
        options |= {"headers": dict.fromkeys(options["headers"], "…")} if "headers" in options else {}
        return cls(
            name=stored.name,
            tenant=stored.tenant,
            options=options,
            rooms_at_most=list(stored.within),
            made_at=iso(stored.made_at),
            made_by=stored.made_by if viewer.is_operator else None,
            expires_at=iso_or_none(stored.expires_at),
            replaced_by_configuration=replaced,
            changed=changed,
            secret=secret,
        )


class PingResult(AnswerModel):
    endpoint: str
    event_id: str
    taken: bool
    """Whether the answer was 2xx."""
    stage: str
    """``ok``, or where it failed: dns, egress, connect, tls, write, headers, status or timeout; ``fault``: here."""
    status: int | None
    """The HTTP status; null if none was received."""
    reason: str | None
    """Why it was not taken."""
    elapsed_ms: float

    @classmethod
    def of(cls, endpoint: str, event_id: str, outcome: Outcome, viewer: Viewer) -> "PingResult":
        why = f"the relay's own fault: {outcome.detail}" if isinstance(outcome, Fault) else outcome.reason
        return cls(
            endpoint=endpoint,
            event_id=event_id,
            taken=isinstance(outcome, Delivered),
            stage=viewer.stage(outcome.stage),
            status=outcome.status,
            reason=viewer.reason(why or None),
            elapsed_ms=round(outcome.elapsed_ms, 1),
        )


class EndpointChange(AnswerModel):
    endpoint: str
    changed: bool
    """False if it was so already."""
    skipped: int = 0
    """Events that it will never get."""
