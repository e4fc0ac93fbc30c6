"""Synchronizes endpoint state between the log and this process: disabled endpoints, and their health."""

import asyncio
import logging
from dataclasses import replace

from relay.clock import Clock
from relay.dispatch.endpoint.health import Condition
from relay.dispatch.endpoint.runtime import EndpointRuntime
from relay.dispatch.state import DispatcherState
from relay.dispatch.store import LaneStore
from relay.outbox.records import EndpointState

_PROBE_TURN_MS = 3_000
"""After a rest, the dispatcher that began it probes the endpoint, and the others read in the log what it found. If they
find nothing for the length of an attempt and this, the next one probes."""
_RECOVERS_EVERY = 1.0
WRITE_EVERY_MS = 5000
"""The shortest interval between two writes of an endpoint's health."""

log = logging.getLogger(__name__)


class EndpointSync:
    """Stops sending to endpoints that are disabled in the log, and resumes when they are enabled."""

    def __init__(self, store: LaneStore, state: DispatcherState, clock: Clock) -> None:
        self._store, self._state, self._clock = store, state, clock
        self._known: set[EndpointRuntime] = set()

    async def poll(self) -> None:
        """Apply the log's state."""
        names = list(self._state.endpoints)
        states = await self._store.endpoint_states(names)
        for name, endpoint in self._state.endpoints.items():
            if (state := states.get(name)) is None:
                continue
            if not self._state.shares.alone:
                self._follow(endpoint, state)
            elif endpoint not in self._known:
                endpoint.condition = Condition(state, self._clock.now_ms())
            if state.disabled_at is not None and not endpoint.disabled:
                endpoint.deactivate()
                self._state.withdraw(endpoint)
                _report_disabled(state)
            elif state.disabled_at is None and endpoint.disabled:
                endpoint.enable(Condition(state, self._clock.now_ms()))
                self._state.request_claim()
                log.info("endpoint %s is enabled: it is sent to again", name, extra={"endpoint": name})
        # one that was added meanwhile is not: the log was not asked about it
        self._known = {self._state.endpoints[name] for name in names if name in self._state.endpoints}

    async def meet(self) -> None:
        """Apply the log's state if there are endpoints that were added, before their first attempts."""
        if not self._known.issuperset(self._state.endpoints.values()):
            await self.poll()

    def _follow(self, endpoint: EndpointRuntime, state: EndpointState) -> None:
        """Take over what other dispatchers know of the endpoint."""
        now_ms, condition = self._clock.now_ms(), endpoint.condition
        if endpoint not in self._known:
            # a rest in the log is another dispatcher's
            endpoint.condition = condition = Condition(replace(state, resting_until=None), now_ms)
        else:
            condition.follow(state, now_ms)
        until = state.resting_until
        if condition.has_rest_changed or until == condition.resting_until:
            return
        if until is None:
            endpoint.follow_recovery()
            self._state.request_claim()
        elif until > now_ms:
            turn_ms = _PROBE_TURN_MS * (1 + self._state.shares.rank)
            endpoint.follow_rest(until, until - now_ms + round(endpoint.route.timeout * 1000) + turn_ms)
            self._state.withdraw(endpoint)

    async def disable(self) -> None:
        """Disable in the log the endpoints whose answers require it."""
        for name, endpoint in list(self._state.endpoints.items()):
            if (because := endpoint.disabling) is not None:
                await self._store.note_health([endpoint.condition.note(name)])
                disabled = await self._store.disable(name, because)
                if endpoint.disabling is None:
                    continue  # removed from the configuration meanwhile
                endpoint.deactivate()
                if disabled:
                    note = endpoint.condition.note(name)
                    _report_disabled(EndpointState(name, True, 0, because, last_error=note.last_error))

    async def recover(self) -> bool:
        """Make waiting retries due immediately for endpoints that have recovered; returns whether any has.

        At most once a second for each: an endpoint that fails every other time recovers all the time.
        """
        state, now, recovered = self._state, asyncio.get_running_loop().time(), False
        for name, endpoint in list(state.endpoints.items()):
            condition = endpoint.condition
            recovery = condition.recovery
            if recovery is None or now - endpoint.recovered_at < _RECOVERS_EVERY:
                continue
            endpoint.recovered_at = now
            due = await self._store.recover(name, since=recovery.since)
            if condition.recovery is recovery:
                condition.recovery = None
            endpoint.has_unclaimed = endpoint.has_unclaimed_parked = recovered = True
            if due:
                log.info("endpoint %s is back: %d events that waited are due now", name, due, extra={"endpoint": name})
        if recovered:
            state.request_claim()
        return recovered

    async def note_rests(self) -> None:
        """Write the rests that began or ended since the last round: the other dispatchers wait for that."""
        if any(endpoint.condition.has_rest_changed for endpoint in self._state.endpoints.values()):
            await self.note_health()

    async def note_health(self, *, now: bool = False) -> None:
        """Write the health of endpoints with changes; ``now``: however recent the last write was."""
        steady = self._clock.steady_ms()
        news = [
            endpoint
            for endpoint in self._state.endpoints.values()
            if endpoint.condition.unwritten
            and (now or endpoint.condition.has_rest_changed or steady - endpoint.written_at >= WRITE_EVERY_MS)
        ]
        if not news:
            return
        notes = [endpoint.condition.note(endpoint.name) for endpoint in news]
        for endpoint in news:
            endpoint.condition.unwritten = endpoint.condition.has_rest_changed = False
            endpoint.written_at = steady
        try:
            await self._store.note_health(notes)
        except BaseException:
            for note, endpoint in zip(notes, news, strict=True):
                endpoint.condition.unwritten = True
                endpoint.condition.has_rest_changed |= note.has_rest_changed
            raise


def _report_disabled(state: EndpointState) -> None:
    log.error(
        "endpoint %s is disabled (%s%s): nothing is sent to it until `speech-relay endpoints enable %s`",
        state.name,
        state.disabled_because,
        f"; {state.last_error}" if state.last_error else "",
        state.name,
        extra={"endpoint": state.name},
    )
