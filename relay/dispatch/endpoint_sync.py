"""Synchronizes endpoint state between the log and this process: disabled endpoints, and their health."""

import asyncio
import logging

from relay.clock import Clock
from relay.dispatch.endpoint.health import Condition
from relay.dispatch.endpoint.runtime import Destination
from relay.dispatch.state import Holdings
from relay.dispatch.store import LaneStore
from relay.outbox.records import EndpointState

_RECOVERS_EVERY = 1.0
WRITE_EVERY_MS = 5000
"""The shortest interval between two writes of an endpoint's health."""

log = logging.getLogger(__name__)


class Standing:
    """Stops sending to endpoints that are disabled in the log, and resumes when they are enabled."""

    def __init__(self, store: LaneStore, holdings: Holdings, clock: Clock) -> None:
        self._store, self._holdings, self._clock = store, holdings, clock
        self._known: set[Destination] = set()
        self._written_at: dict[str, int] = {}
        self._recovered_at: dict[str, float] = {}
        """When each endpoint last recovered, on the event loop's clock."""

    async def look(self) -> None:
        """Apply the log's state."""
        states = await self._store.endpoint_states()
        for name, destination in self._holdings.destinations.items():
            if (state := states.get(name)) is None:
                continue
            if destination not in self._known:
                destination.condition = Condition(state, self._clock.now_ms())
            if state.disabled_at is not None and not destination.disabled:
                destination.leave()
                self._holdings.withdraw(destination)
                _tell_disabled(state)
            elif state.disabled_at is None and destination.disabled:
                destination.enable(Condition(state, self._clock.now_ms()))
                self._holdings.want()
                log.info("endpoint %s is enabled: it is sent to again", name, extra={"endpoint": name})
        self._known = set(self._holdings.destinations.values())

    async def disable(self) -> None:
        """Disable in the log the endpoints whose answers require it."""
        for name, destination in list(self._holdings.destinations.items()):
            if (because := destination.disabling) is not None:
                await self._store.note_health([destination.condition.note(name)])
                disabled = await self._store.disable(name, because)
                if destination.disabling is None:
                    continue  # removed from the configuration meanwhile
                destination.leave()
                if disabled:
                    note = destination.condition.note(name)
                    _tell_disabled(EndpointState(name, True, 0, because, last_error=note.last_error))

    async def recover(self) -> bool:
        """Make waiting retries due immediately for endpoints that have recovered; returns whether any has.

        At most once a second for each: an endpoint that fails every other time recovers all the time.
        """
        holdings, now, recovered = self._holdings, asyncio.get_running_loop().time(), False
        for name, destination in list(holdings.destinations.items()):
            condition = destination.condition
            recovery = condition.recovery
            if recovery is None or now - self._recovered_at.get(name, now - _RECOVERS_EVERY) < _RECOVERS_EVERY:
                continue
            self._recovered_at[name] = now
            due = await self._store.recover(name, since=recovery.since)
            if condition.recovery is recovery:
                condition.recovery = None
            destination.more = recovered = True
            if due:
                log.info("endpoint %s is back: %d events that waited are due now", name, due, extra={"endpoint": name})
        if recovered:
            holdings.want()
        return recovered

    async def note_health(self, *, now: bool = False) -> None:
        """Write the health of endpoints with changes; ``now``: however recent the last write was."""
        steady = self._clock.steady_ms()
        news = [
            (name, destination.condition)
            for name, destination in self._holdings.destinations.items()
            if destination.condition.unwritten
            and (now or steady - self._written_at.get(name, steady - WRITE_EVERY_MS) >= WRITE_EVERY_MS)
        ]
        if not news:
            return
        for name, condition in news:
            condition.unwritten = False
            self._written_at[name] = steady
        try:
            await self._store.note_health([condition.note(name) for name, condition in news])
        except BaseException:
            for _, condition in news:
                condition.unwritten = True
            raise


def _tell_disabled(state: EndpointState) -> None:
    log.error(
        "endpoint %s is disabled (%s%s): nothing is sent to it until `speech-relay endpoints enable %s`",
        state.name,
        state.disabled_because,
        f"; {state.last_error}" if state.last_error else "",
        state.name,
        extra={"endpoint": state.name},
    )
