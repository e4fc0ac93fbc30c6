"""The dispatcher's one background duty: claim lanes when a ring or a retry calls for it, and sweep every second.

Claims and sweeps take turns in one task, so a ring that comes while lanes are being released leads to a claim
afterwards, never before.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from contextlib import suppress

from relay.clock import Clock
from relay.dispatch.feed import Feed
from relay.dispatch.guard import Guard
from relay.dispatch.holdings import Holdings
from relay.dispatch.lane import HeldLane, Phase
from relay.dispatch.leases import plan
from relay.dispatch.sending import Sending
from relay.dispatch.stats import Stats
from relay.dispatch.store import LaneStore
from relay.errors import OutboxError
from relay.outbox.records import Settlement

CLAIM = 256
"""Lanes claimed per endpoint and transaction."""
HELD = 4000
"""Lanes held at most by one process: each lease is renewed one by one."""
SATURATED = 512
"""An endpoint with so many lanes waiting for a worker is left out at the claim."""
RING_SECONDS = 0.5
"""How late a ring may come, on a busy machine, without being counted as lost."""

log = logging.getLogger(__name__)


class Upkeep:
    """Leases: claiming, renewing, releasing, and finding what no ring announced."""

    def __init__(
        self,
        store: LaneStore,
        holdings: Holdings,
        feed: Feed,
        sending: Sending,
        guard: Guard,
        *,
        clock: Clock,
        stats: Stats,
        lease_ms: int,
        linger_ms: int,
        sweep_seconds: float,
    ) -> None:
        self._store, self._holdings, self._feed, self._sending = store, holdings, feed, sending
        self._clock, self._stats = clock, stats
        self._lease_ms, self._linger_ms, self._sweep_seconds = lease_ms, linger_ms, sweep_seconds
        self._wake = holdings.resting.sooner
        self._wanted = True  # what was due before the start
        self._rung: set[int] = set()
        """Streams that were rung for since the last sweep."""
        self._suspects: set[int] = set()
        """Streams of which a sweep knew more than any ring had told."""
        self._last_call = False
        self._closed = asyncio.Event()
        self._confirm = guard(self._confirm_lost)

    def ring(self, streams: Collection[int]) -> None:
        """These streams have more."""
        self._rung.update(streams)
        self._suspects.difference_update(streams)
        for stream in streams:
            self._feed.stir(stream)
            if self._holdings.missing(stream):
                self._want()

    async def finish_claiming(self) -> None:
        """Claim once more, for what was appended until now; from then on only what is held is looked after."""
        self._last_call = True
        self._want()
        await self._closed.wait()

    async def run(self) -> None:
        """Until cancelled. A log that cannot be used is reported and tried again at the next sweep."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time() + self._sweep_seconds
        while True:
            await self._called(sweep_at - loop.time())
            last_call, sweeping = self._last_call, loop.time() >= sweep_at
            try:
                if sweeping:
                    sweep_at = loop.time() + self._sweep_seconds
                    self._rung.clear()
                    await self.sweep()
                announced = self._take_call()
                if (announced or sweeping) and not self._closed.is_set():
                    await self.claim(announced=announced)
            except OutboxError as error:
                log.error("the log cannot be used, next try in a second: %s", error)  # noqa: TRY400 - not a bug
                if not last_call:
                    await asyncio.sleep(self._sweep_seconds)
            if last_call:
                self._closed.set()

    async def claim(self, *, announced: bool) -> None:
        """Lease what is due, until there is no more or there is no room. ``announced``: something called for it."""
        found: set[int] = set()
        while wants := self._wants():
            lanes = await self._store.claim(wants, lease_ms=self._lease_ms)
            now_ms = self._clock.now_ms()
            for lane in lanes:
                if (lane.stream, lane.endpoint) not in self._holdings.resting and lane.attempts == 0:
                    found.add(lane.stream)
                self._feed.kick(self._holdings.adopt(lane, now_ms))
            claimed = Counter(lane.endpoint for lane in lanes)
            if all(claimed[name] < count for name, count in wants.items()):
                break
        if not announced:
            self._suspect(found - self._rung)

    async def sweep(self) -> None:
        """Let go, renew, settle what could not be settled, and compare with the log."""
        now_ms = self._clock.now_ms()
        todo = plan(self._holdings.lanes.values(), now_ms, lease_ms=self._lease_ms, linger_ms=self._linger_ms)
        await self.release(todo.leave)
        if todo.renew:
            await self._store.renew([lane.key() for lane in todo.renew], lease_ms=self._lease_ms)
            for lane in todo.renew:
                lane.lease_until = max(lane.lease_until, now_ms + self._lease_ms)
        for lane in list(self._holdings.lanes.values()):
            if lane.phase is Phase.UNSETTLED and lane.pending is not None:
                self._sending.settle(lane, lane.pending)
        self._feed.stir_hungry()
        if self._holdings.tails:
            newest = await self._store.last_sequences(list(self._holdings.tails))
            unread = {stream for stream, sequence in newest.items() if self._unread(stream, sequence)}
            for stream in unread:
                self._feed.stir(stream)
            self._suspect(unread)

    async def release(self, lanes: Collection[HeldLane]) -> None:
        """Give lanes back, with the cursor moved over what was skipped at the end."""
        if not lanes:
            return
        settlements: list[Settlement] = []
        for lane in lanes:
            if lane.pending is not None:
                settlements.append(lane.pending)
            elif lane.position > lane.settled:
                settlements.append(Settlement(lane.id, lane.fence, lane.position, lane.last_sent, lane.attempts))
            self._holdings.drop(lane)
        for result in await asyncio.gather(*map(self._store.settle, settlements), return_exceptions=True):
            if isinstance(result, OutboxError):
                log.warning("a lane's cursor cannot be written, what it skipped is read again: %s", result)
            elif isinstance(result, BaseException):
                raise result
        # a settlement that says when to retry has let its lane go already
        await self._store.release([lane.key() for lane in lanes if lane.pending is None or not lane.pending.next_at])

    async def _called(self, seconds: float) -> None:
        """Wait for a ring that calls for a claim, for the next retry, or for the sweep."""
        resting, loop = self._holdings.resting, asyncio.get_running_loop()
        sweep_at = loop.time() + seconds
        while not self._wanted:
            wait = sweep_at - loop.time()
            if resting.earliest is not None:
                wait = min(wait, (resting.earliest - self._clock.now_ms()) / 1000)
            if wait <= 0:
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _want(self) -> None:
        self._wanted = True
        self._wake.set()

    def _take_call(self) -> bool:
        """Whether a ring or a retry has called for a claim."""
        called, self._wanted = self._wanted, False
        return self._holdings.resting.wake(self._clock.now_ms()) or called

    def _wants(self) -> dict[str, int]:
        room = HELD - len(self._holdings.lanes)
        if room <= 0:
            return {}
        return {name: min(CLAIM, room) for name, queue in self._holdings.ready.items() if queue.qsize() < SATURATED}

    def _unread(self, stream: int, sequence: int) -> bool:
        tail = self._holdings.tails.get(stream)
        return tail is not None and not tail.more and not tail.reading and sequence > tail.end

    def _suspect(self, streams: set[int]) -> None:
        """Nobody rang for these, or their ring is still on its way: count them if it does not come."""
        if streams:
            self._suspects |= streams
            asyncio.get_running_loop().call_later(RING_SECONDS, self._confirm, streams)

    def _confirm_lost(self, streams: set[int]) -> None:
        lost = streams & self._suspects
        self._suspects -= lost
        self._stats.found_by_sweep += len(lost)
