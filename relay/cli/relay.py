"""What the commands ask and change: of the log on this machine, or of a remote relay with ``--api``."""

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from relay.cli.options import API, load_config
from relay.cli.output.delivery_blocker import WaitsFor
from relay.dispatch.http.outcome import Outcome
from relay.outbox.log.processes import FleetState
from relay.outbox.log.resends import Resent
from relay.outbox.operator.redelivery import Retried
from relay.outbox.operator.views import (
    AttemptView,
    DeliveryState,
    DeliveryView,
    EndpointView,
    EventDeliveries,
    EventView,
)

TOKEN = "SPEECH_RELAY_API_TOKEN"  # noqa: S105 - the name of the variable


class OperatedRelay(Protocol):
    """A relay as an operator sees it. Every method raises ``RelayError`` if it cannot be asked, or knows no endpoint of
    that name. Times are epoch milliseconds."""

    async def fleet(self) -> FleetState:
        """Its processes, and what is being recorded."""
        ...

    async def endpoints(self) -> list[tuple[EndpointView, str]]:
        """Every endpoint, by name, and its state in a word: new, enabled, resting, disabled or not in config."""
        ...

    async def disable(self, name: str) -> bool:
        """Disable an endpoint; False if it is disabled already."""
        ...

    async def enable(self, name: str, *, skip: bool) -> tuple[int | None, WaitsFor | None]:
        """Enable an endpoint: returns how many events were skipped, None if it was not disabled."""
        ...

    async def ping(self, name: str) -> tuple[str, Outcome]:
        """Send a ping: returns its id, and what came of it."""
        ...

    async def deliveries(
        self, states: Collection[DeliveryState], *, endpoint: str | None, since: int, limit: int
    ) -> list[DeliveryView]:
        """At most ``limit`` deliveries that have been in one of these states since ``since`` or later."""
        ...

    async def delivery(self, event_id: str, *, endpoint: str | None) -> EventDeliveries | None:
        """Where an event stands, and its attempts; None if it is not known, or not any more."""
        ...

    async def retry(self, event_id: str, endpoint: str) -> tuple[Retried, WaitsFor | None]:
        """Have a failed event tried again now."""
        ...

    async def names(self, endpoint: str | None) -> list[str]:
        """This endpoint's name, or without one those of all that the log knows."""
        ...

    def retry_dead(self, name: str, *, since: int) -> AsyncIterator[int]:
        """Have every event that died for an endpoint since then tried again now; how many, step by step."""
        ...

    def discard_dead(self, name: str, *, since: int) -> AsyncIterator[int]:
        """Dismiss the events that died for an endpoint since then; how many, step by step."""
        ...

    async def waits_for(self, name: str) -> WaitsFor | None:
        """What must happen before anything is sent to it; None if nothing, or if that is not known here."""
        ...

    async def remove(self, name: str) -> None:
        """Remove an endpoint that was made over the HTTP API."""
        ...

    async def resend(
        self, endpoint: str, *, since: int, until: int | None, pattern: str, room: str, dry_run: bool
    ) -> tuple[Resent, WaitsFor | None]:
        """Send again what an endpoint has got of that time, of types and rooms that match."""
        ...

    async def events(self, *, room: str, participant: str, pattern: str, since: int, limit: int) -> list[EventView]:
        """The newest events whose room, participant and type match, newest first."""
        ...

    def appended(self, *, room: str, participant: str, pattern: str) -> AsyncIterator[EventView]:
        """Events as they are appended, without an end."""
        ...

    def attempted(self, endpoint: str | None) -> AsyncIterator[AttemptView]:
        """Attempts as they are recorded, without an end."""
        ...

    async def event(self, event_id: str) -> EventView | None:
        """The event; None if it is not known, or not any more."""
        ...


@asynccontextmanager
async def operated(config: Path) -> AsyncIterator[OperatedRelay]:
    """The relay of ``--api``, or else of this configuration's log. Raises ``RelayError``."""
    if (url := API.get()) is not None:
        from relay.cli.api_relay import api_relay

        async with api_relay(url, os.environ.get(TOKEN)) as remote:
            yield remote
    else:
        from relay.cli.log_relay import log_relay

        async with log_relay(load_config(config)) as local:
            yield local
