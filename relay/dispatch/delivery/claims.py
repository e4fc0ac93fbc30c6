"""Claims due work for endpoints that can use it, and detects lost rings."""

import asyncio
from collections import Counter
from collections.abc import Collection

from relay.clock import Clock
from relay.dispatch.delivery.reader import Feed
from relay.dispatch.guard import Guard
from relay.dispatch.state import Holdings
from relay.dispatch.stats import Stats
from relay.dispatch.store import LaneStore
from relay.outbox.records import Lane

CLAIM = 256
"""Lanes claimed per endpoint and transaction."""
RING_SECONDS = 0.5
"""How late a ring may arrive, on a busy machine, before it counts as lost."""


class Claims:
    """Claims lanes and parked events. An endpoint without room, or not sent to, is left out and costs no query."""

    def __init__(
        self, store: LaneStore, holdings: Holdings, feed: Feed, guard: Guard, *, clock: Clock, stats: Stats
    ) -> None:
        self._store, self._holdings, self._feed = store, holdings, feed
        self._clock, self._stats = clock, stats
        self._rung: set[int] = set()
        """Streams announced by a ring since the last sweep."""
        self._suspects: set[int] = set()
        """Streams of which a sweep knew more than any ring had announced."""
        self._confirm = guard(self._confirm_lost)

    def rung(self, streams: Collection[int]) -> None:
        """Record that these streams were announced."""
        self._rung.update(streams)
        self._suspects.difference_update(streams)

    def swept(self) -> None:
        """Start a sweep: it covers everything announced before."""
        self._rung.clear()

    async def claim(self, *, announced: bool) -> None:
        """Claim what is due, until nothing is left or no room is. ``announced``: a ring or a retry called for it."""
        unannounced: set[int] = set()
        claimed: Counter[str] = Counter()
        wants = self._wants(claimed)
        while wants:
            known = {name for name in wants if self._holdings.destinations[name].more}
            lanes = await self._store.claim(wants, lease_ms=self._holdings.lease_ms)
            unannounced |= self._found([lane for lane in lanes if lane.endpoint not in known])
            await self._adopt(lanes)
            got = Counter(lane.endpoint for lane in lanes)
            claimed += got
            full = {name for name, count in wants.items() if got[name] >= count}
            for name in wants:
                if (destination := self._holdings.destinations.get(name)) is not None:
                    destination.more = name in full
            wants = {name: count for name, count in self._wants(claimed).items() if name in full and self._steady(name)}
        if not announced:
            self.suspect(unannounced - self._rung)

    async def claim_parked(self) -> None:
        """Claim due parked events, as many as can be sent at once."""
        held = Counter(parked.destination.name for parked in self._holdings.parked.values())
        self._holdings.parked_wanted = False
        wants = {
            name: room
            for name, destination in self._holdings.destinations.items()
            if (room := destination.vacant_aside(held[name]))
        }
        if not wants:
            return
        claims = await self._store.claim_parked(wants, lease_ms=self._holdings.lease_ms)
        claimed = Counter(claim.endpoint for claim in claims)
        for name, room in wants.items():
            if (destination := self._holdings.destinations.get(name)) is not None:
                destination.more_parked = claimed[name] == room
        for claim in claims:
            if claim.endpoint in self._holdings.destinations:
                parked = self._holdings.adopt_parked(claim)
                parked.destination.ready.put_nowait(parked)

    def suspect(self, streams: set[int]) -> None:
        """These streams had no ring, or their ring is still on its way: count them if it does not arrive."""
        if streams:
            self._suspects |= streams
            asyncio.get_running_loop().call_later(RING_SECONDS, self._confirm, streams)

    def _wants(self, claimed: Counter[str]) -> dict[str, int]:
        """How many lanes to claim for each endpoint; ``claimed`` are on their way to its queue."""
        room, share = self._holdings.room, self._holdings.share
        wants = {
            name: min(CLAIM, room, destination.vacant(share) - claimed[name])
            for name, destination in self._holdings.destinations.items()
        }
        return {name: count for name, count in wants.items() if count > 0}

    def _steady(self, name: str) -> bool:
        return not self._holdings.destinations[name].gate.probing

    async def _adopt(self, lanes: Collection[Lane]) -> None:
        now_ms = self._clock.now_ms()
        strays: list[tuple[int, int]] = []
        for lane in lanes:
            if lane.endpoint in self._holdings.destinations:
                self._feed.kick(self._holdings.adopt(lane, now_ms))
            else:  # removed from the configuration meanwhile
                strays.append((lane.id, lane.fence))
        if strays:
            await self._store.release(strays)

    def _found(self, lanes: Collection[Lane]) -> set[int]:
        """The streams of the lanes that no retry and no ring explain."""
        return {
            lane.stream
            for lane in lanes
            if (lane.stream, lane.endpoint) not in self._holdings.resting and lane.attempts == 0
        }

    def _confirm_lost(self, streams: set[int]) -> None:
        lost = streams & self._suspects
        self._suspects -= lost
        self._stats.found_by_sweep += len(lost)
