"""The dispatcher's background task: claims on a ring or a retry, and sweeps every second.

Claims and sweeps alternate in one task, so a ring that arrives while lanes are being released leads to a claim
afterwards, never before.
"""

import asyncio
import logging
from contextlib import suppress

from relay.clock import Clock
from relay.dispatch.clock_jump import ClockJumps
from relay.dispatch.delivery.claims import Claims
from relay.dispatch.delivery.commit import Settling
from relay.dispatch.delivery.lease_release import Releasing
from relay.dispatch.delivery.reader import Feed
from relay.dispatch.endpoint_sync import Standing
from relay.dispatch.lanes.leases import plan
from relay.dispatch.state import Holdings
from relay.dispatch.store import LaneStore
from relay.errors import OutboxError
from relay.outbox.records import Growth

log = logging.getLogger(__name__)


class Upkeep:
    """Maintains leases and endpoint state: everything except the sending itself."""

    def __init__(
        self,
        store: LaneStore,
        holdings: Holdings,
        feed: Feed,
        settling: Settling,
        claims: Claims,
        releasing: Releasing,
        standing: Standing,
        *,
        clock: Clock,
        linger_ms: int,
        sweep_seconds: float,
    ) -> None:
        self._store, self._holdings, self._feed, self._settling = store, holdings, feed, settling
        self._claims, self._releasing, self._standing = claims, releasing, standing
        self._clock, self._jumps = clock, ClockJumps(clock)
        self._linger_ms, self._sweep_seconds = linger_ms, sweep_seconds
        self._last_call = False
        self._closed = asyncio.Event()

    def ring(self, growth: Growth) -> None:
        """These streams have more events."""
        self._claims.rung(growth)
        for stream, records in growth.items():
            self._feed.stir(stream, records)
            if self._holdings.missing(stream):
                self._holdings.want()

    async def finish_claiming(self) -> None:
        """Claim once more, for what was appended until now; after that, only maintain what is held."""
        self._last_call = True
        self._holdings.want()
        await self._closed.wait()

    async def run(self) -> None:
        """Run until cancelled. If the log cannot be used, report it and retry at the next sweep."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time() + self._sweep_seconds
        while True:
            await self._called(sweep_at - loop.time())
            last_call, sweeping, failed = self._last_call, loop.time() >= sweep_at, False
            try:
                await self._follow_clock()
                await self._standing.disable()
                recovered = await self._standing.recover()
                if sweeping:
                    sweep_at = loop.time() + self._sweep_seconds
                    self._claims.swept()
                    await self._sweep()
                if sweeping or self._holdings.withdrawing:
                    await self._releasing.withdraw()
                if recovered and not last_call:
                    await self._claims.claim_parked()  # first: they are older than what waits in lanes
                announced = self._take_call()
                if (announced or sweeping) and not self._closed.is_set():
                    await self._claims.claim(announced=announced)
                if (sweeping or self._holdings.parked_wanted) and not last_call:
                    await self._claims.claim_parked()
            except OutboxError as error:
                log.error("the log cannot be used, next try in a second: %s", error)  # noqa: TRY400 - not a bug
                failed = True
            if last_call:
                self._closed.set()
            if failed:
                await asyncio.sleep(self._sweep_seconds)

    async def _sweep(self) -> None:
        """Release, renew, retry failed settlements, and compare with the log."""
        await self._standing.look()
        holdings, now_ms, lease_ms = self._holdings, self._clock.now_ms(), self._holdings.lease_ms
        # without room, lanes do not linger: others wait for their slots
        linger_ms = self._linger_ms if holdings.room > 0 else 0
        todo = plan(holdings.lanes.values(), now_ms, lease_ms=lease_ms, linger_ms=linger_ms)
        await self._releasing.release(todo.leave)
        if todo.renew:
            await self._store.renew([lane.key() for lane in todo.renew], lease_ms=lease_ms)
            for lane in todo.renew:
                lane.lease_until = max(lane.lease_until, now_ms + lease_ms)
        self._settling.again()
        self._feed.stir_hungry()
        if holdings.tails:
            newest = await self._store.last_sequences(list(holdings.tails))
            unread = {stream for stream, sequence in newest.items() if self._unread(stream, sequence)}
            for stream in unread:
                self._feed.stir(stream)
            self._claims.suspect(unread)
        await self._standing.note_health()

    async def _follow_clock(self) -> None:
        """Runs before any claim: after the clock was set forward, all leases seem expired and all retries due."""
        if (jump := self._jumps.look()) is None:
            return
        log.warning("the clock was set by %+.1f s: what is to be sent later moves along", jump.by_ms / 1000)
        await self._store.shift(jump.by_ms, beyond=jump.beyond)
        self._holdings.shift(jump, self._clock.now_ms())
        self._jumps.followed(jump)

    async def _called(self, seconds: float) -> None:
        """Wait for a ring that requires a claim, for lanes to release, for the next retry, or for the sweep.

        The last call ends the wait even if the round before has answered its claim.
        """
        holdings, loop = self._holdings, asyncio.get_running_loop()
        sweep_at = loop.time() + seconds
        while not (holdings.wanted or holdings.parked_wanted or holdings.withdrawing or self._last_call_waits()):
            wait = sweep_at - loop.time()
            if holdings.resting.earliest is not None:
                wait = min(wait, (holdings.resting.earliest - self._clock.now_ms()) / 1000)
            if wait <= 0:
                return
            holdings.wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await holdings.wake.wait()

    def _last_call_waits(self) -> bool:
        return self._last_call and not self._closed.is_set()

    def _take_call(self) -> bool:
        """Whether a ring or a retry requires a claim."""
        called, self._holdings.wanted = self._holdings.wanted, False
        return self._holdings.resting.wake(self._clock.now_ms()) or called

    def _unread(self, stream: int, sequence: int) -> bool:
        tail = self._holdings.tails.get(stream)
        return tail is not None and not tail.more and not tail.reading and sequence > tail.end
