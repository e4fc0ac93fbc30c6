"""Claims due work for endpoints that can use it, and detects lost rings."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from relay.clock import Clock
from relay.dispatch.delivery.reader import LaneReader
from relay.dispatch.guard import CallbackGuard
from relay.dispatch.metrics import DeliveryMetrics
from relay.dispatch.state import DispatcherState
from relay.dispatch.store import LaneStore
from relay.outbox.records import Lane, StreamShare

CLAIM = 256
"""Lanes claimed per endpoint and transaction."""
_HAND_OVER_SWEEPS = 4
"""Sweeps after dispatchers have come or gone, in which lanes that they released are looked for."""
RING_SECONDS = 0.5
"""How late a ring may arrive, on a busy machine, before it counts as lost."""


class LeaseClaims:
    """Claims lanes and parked events. An endpoint without room, or not sent to, is left out and costs no query."""

    def __init__(
        self,
        store: LaneStore,
        state: DispatcherState,
        reader: LaneReader,
        guard: CallbackGuard,
        *,
        clock: Clock,
        metrics: DeliveryMetrics,
        awaken: Callable[[Collection[str]], Awaitable[None]],
    ) -> None:
        """``awaken`` wakes those of these endpoints that are dormant."""
        self._awaken = awaken
        self._store, self._state, self._reader = store, state, reader
        self._clock, self._metrics = clock, metrics
        self._announced: set[int] = set()
        """Streams announced by a ring since the last sweep."""
        self._suspects: set[int] = set()
        """Streams of which a sweep knew more than any ring had announced."""
        self._handing_over = 0
        self._confirm = guard(self._confirm_lost)

    def announced(self, streams: Collection[int]) -> None:
        """Record that these streams were announced."""
        self._announced.update(streams)
        self._suspects.difference_update(streams)

    def swept(self) -> None:
        """Start a sweep: it covers everything announced before."""
        self._announced.clear()
        self._handing_over = max(0, self._handing_over - 1)

    def handed_over(self) -> None:
        """Other dispatchers give lanes back in the next sweeps: nothing announces them."""
        self._handing_over = _HAND_OVER_SWEEPS

    async def claim(self, *, announced: bool) -> None:
        """Claim what is due, until nothing is left or no lane is free.

        ``announced``: a ring or a retry called for it. Otherwise an endpoint of which this dispatcher has nothing to
        send gets what the other dispatchers should have claimed by now. After an outage all of them have a backlog that
        is overdue: the first to claim would have it all, and keep it until its end.
        """
        unannounced: set[int] = set()
        claimed: Counter[str] = Counter()
        due = await self._due()
        wants = self._capacity(claimed, due)
        while wants:
            known = due | {name for name in wants if self._state.endpoints[name].has_unclaimed}
            shares = {name: share._replace(only=True) for name, share in self._shares(wants).items()}
            lanes = await self._store.claim(wants, lease_ms=self._state.lease_ms, shares=shares)
            unannounced |= self._found([lane for lane in lanes if lane.endpoint not in known])
            await self._adopt(lanes)
            got = Counter(lane.endpoint for lane in lanes)
            claimed += got
            full = {name for name, count in wants.items() if got[name] >= count}
            for name in wants:
                if (endpoint := self._state.endpoints.get(name)) is not None:
                    endpoint.has_unclaimed = name in full
            wants = {
                name: count
                for name, count in self._capacity(claimed, full).items()
                if name in full and self._is_steady(name)
            }
        if announced:
            return
        if not self._handing_over:
            self.suspect(unannounced - self._announced)
        if not self._state.shares.alone:
            await self._claim_overdue(claimed, due)

    async def _claim_overdue(self, claimed: Counter[str], due: Collection[str]) -> None:
        """Claim what is not this dispatcher's share, for endpoints that wait for nothing of its own."""
        wants = {
            name: count
            for name, count in self._capacity(claimed, due).items()
            if not claimed[name] and self._state.endpoints[name].ready.empty()
        }
        if wants:
            await self._adopt(await self._store.claim(wants, lease_ms=self._state.lease_ms, shares=self._shares(wants)))

    async def claim_parked(self) -> None:
        """Claim due parked events, as many as can be sent at once."""
        held = Counter(parked.endpoint.name for parked in self._state.parked.values())
        self._state.parked_claim_requested = False
        wants = {
            name: count
            for name, endpoint in self._state.endpoints.items()
            if (not endpoint.by_api or endpoint.has_unclaimed_parked)
            and (count := endpoint.parked_capacity(held[name]))
        }
        if not wants:
            return
        claims = await self._store.claim_parked(wants, lease_ms=self._state.lease_ms, shares=self._shares(wants))
        claimed = Counter(claim.endpoint for claim in claims)
        for name, count in wants.items():
            if (endpoint := self._state.endpoints.get(name)) is not None:
                endpoint.has_unclaimed_parked = claimed[name] == count
        for claim in claims:
            if claim.endpoint in self._state.endpoints:
                parked = self._state.adopt_parked(claim)
                parked.endpoint.ready.put_nowait(parked)

    def suspect(self, streams: set[int]) -> None:
        """These streams had no ring, or their ring is still on its way: count them if it does not arrive."""
        if streams:
            self._suspects |= streams
            asyncio.get_running_loop().call_later(RING_SECONDS, self._confirm, streams)

    async def find_due(self) -> None:
        """Ask the log which endpoints made over the API have something due, and wake those that are dormant."""
        state = self._state
        if not state.has_api_endpoints:
            return
        lanes, parked = await self._store.due_api_endpoints()
        state.due |= lanes
        await self._awaken(parked)
        for name in parked:
            if (endpoint := state.endpoints.get(name)) is not None and endpoint.by_api:
                endpoint.has_unclaimed_parked = True

    def _shares(self, names: Collection[str]) -> dict[str, StreamShare]:
        if self._state.shares.alone:
            return {}
        return {name: self._state.endpoints[name].fleet_share.streams for name in names}

    async def _due(self) -> set[str]:
        """The endpoints made over the API that there is a reason to claim for, awake."""
        state = self._state
        if state.unlisted:
            # if the log refuses this, the sweep that follows asks which of them have something due
            unlisted, state.unlisted = state.unlisted, set()
            state.list_lanes(await self._store.api_lanes(unlisted))
        due, state.due = state.due, set()
        await self._awaken(due)
        return due

    def _capacity(self, claimed: Counter[str], due: Collection[str]) -> dict[str, int]:
        """How many lanes to claim for each endpoint; ``claimed`` are on their way to its queue.

        One made over the API is asked for only if it is ``due``, or is known to have more.
        """
        free, share = self._state.free_lanes, self._state.queue_limit
        wants = {
            name: min(CLAIM, free, endpoint.lane_capacity(share) - claimed[name])
            for name, endpoint in self._state.endpoints.items()
            if not endpoint.by_api or endpoint.has_unclaimed or name in due
        }
        return {name: count for name, count in wants.items() if count > 0}

    def _is_steady(self, name: str) -> bool:
        return not self._state.endpoints[name].admission.probing

    async def _adopt(self, lanes: Collection[Lane]) -> None:
        now_ms = self._clock.now_ms()
        strays: list[tuple[int, int]] = []
        for lane in lanes:
            if lane.endpoint in self._state.endpoints:
                self._reader.schedule(self._state.adopt(lane, now_ms))
            else:  # removed from the configuration meanwhile
                strays.append((lane.id, lane.fence))
        if strays:
            await self._store.release(strays)

    def _found(self, lanes: Collection[Lane]) -> set[int]:
        """The streams of own lanes that no retry and no ring explain."""
        state = self._state
        return {
            lane.stream
            for lane in lanes
            if (lane.stream, lane.endpoint) not in state.retries
            and lane.attempts == 0
            and (state.shares.alone or state.owns(lane.endpoint, lane.stream))
        }

    def _confirm_lost(self, streams: set[int]) -> None:
        lost = streams & self._suspects
        self._suspects -= lost
        self._metrics.rings_lost.inc(by=len(lost))
