"""The dispatcher's background task: claims on a ring or a retry, and sweeps every second.

Claims and sweeps alternate in one task, so a ring that arrives while lanes are being released leads to a claim
afterwards, never before.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress

from relay.clock import Clock
from relay.dispatch.clock_jump import ClockJumps
from relay.dispatch.delivery.claims import LeaseClaims
from relay.dispatch.delivery.commit import Commits, LeaseRelease
from relay.dispatch.delivery.reader import LaneReader
from relay.dispatch.endpoint_sync import EndpointSync
from relay.dispatch.leases import Plan, plan
from relay.dispatch.state import DispatcherState
from relay.dispatch.store import LaneStore
from relay.errors import OutboxError
from relay.outbox.records import Growth
from relay.telemetry.log_dedup import Outage

log = logging.getLogger(__name__)

STUCK_AFTER_S = 30.0
"""Rounds follow each other every second. The recovery of an endpoint with a long backlog takes some."""

ALL_FOLLOW_MS = 5_000
"""After the clock was set: each process reads a server's clock every two seconds."""


class Maintenance:
    """Maintains leases and endpoint state: everything except the sending itself."""

    def __init__(
        self,
        store: LaneStore,
        state: DispatcherState,
        reader: LaneReader,
        commits: Commits,
        claims: LeaseClaims,
        lease_release: LeaseRelease,
        endpoint_sync: EndpointSync,
        *,
        clock: Clock,
        linger_ms: int,
        sweep_seconds: float,
        rest: Callable[[], None],
        ended: Callable[[], Collection[str]],
    ) -> None:
        """``rest`` puts endpoints to sleep that have nothing to do; ``ended`` are dispatchers that have ended."""
        self._rest = rest
        self._store, self._state, self._reader, self._commits = store, state, reader, commits
        self._claims, self._lease_release, self._endpoint_sync = claims, lease_release, endpoint_sync
        self._clock, self._jumps = clock, ClockJumps(clock)
        self._ended = ended
        self._freed: set[str] = set()
        """Dispatchers that have ended, and whose lanes are free."""
        self._linger_ms, self._sweep_seconds = linger_ms, sweep_seconds
        self._look_again_at: int | None = None
        """When every process follows a clock that was set, by the elapsed time."""
        self._last_claim = False
        self._closed = asyncio.Event()
        self._round_at: float | None = None
        """When the last round was over, on the event loop's clock; None before the first."""
        self._failure = ""
        """Why the last round failed."""
        self._outage = Outage(log, "the log cannot be used, tried again each second", level=logging.ERROR, calm_s=10.0)

    def problem(self) -> str | None:
        """Why nothing new is claimed; None while rounds follow each other."""
        if self._failure:
            return f"deliveries wait for the log: {self._failure}"
        if self._round_at is None:
            return "deliveries have not begun: the relay is starting"
        for_s = asyncio.get_running_loop().time() - self._round_at
        if for_s < STUCK_AFTER_S:
            return None
        return f"the dispatcher has been stuck for {for_s:.0f} s: restart the relay; nothing is lost by that"

    def ring(self, growth: Growth) -> None:
        """These streams have more events."""
        self._claims.announced(growth)
        for stream, records in growth.items():
            self._reader.wake_lanes(stream, records)
            if self._state.needs_claim(stream):
                self._state.request_claim()

    async def finish_claiming(self) -> None:
        """Claim once more, for what was appended until now; after that, only maintain what is held."""
        self._last_claim = True
        self._state.request_claim()
        await self._closed.wait()

    async def run(self) -> None:
        """Run until cancelled. If the log cannot be used, report it and retry at the next sweep."""
        loop = asyncio.get_running_loop()
        self._round_at = loop.time()
        sweep_at = loop.time() + self._sweep_seconds
        while True:
            await self._wait_for_work(sweep_at - loop.time())
            last_claim, sweeping, failed = self._last_claim, loop.time() >= sweep_at, False
            try:
                await self._follow_clock()
                await self._follow_fleet()
                await self._endpoint_sync.note_rests()
                await self._endpoint_sync.disable()
                recovered = await self._endpoint_sync.recover()
                if sweeping:
                    sweep_at = loop.time() + self._sweep_seconds
                    self._claims.swept()
                    await self._sweep()
                if sweeping or self._state.withdrawing:
                    await self._lease_release.withdraw()
                if recovered and not last_claim:
                    await self._claims.claim_parked()  # first: they are older than what waits in lanes
                announced = self._take_request()
                if (announced or sweeping) and not self._closed.is_set():
                    await self._endpoint_sync.meet()
                    await self._claims.claim(announced=announced)
                if (sweeping or self._state.parked_claim_requested) and not last_claim:
                    await self._claims.claim_parked()
            except OutboxError as error:
                self._outage.failed(error)
                self._failure, failed = str(error), True
            else:
                self._outage.over()
                self._failure = ""
            self._round_at = loop.time()
            if last_claim:
                self._closed.set()
            if failed:
                await asyncio.sleep(self._sweep_seconds)

    async def _sweep(self) -> None:
        """Renew, release, retry failed settlements, and compare with the log."""
        await self._claims.find_due()
        await self._endpoint_sync.poll()
        self._rest()
        state, now_ms, lease_ms = self._state, self._clock.now_ms(), self._state.lease_ms
        if renew := self._plan().renew:  # first: the log may refuse to release others
            kept = await self._store.renew([lane.key() for lane in renew], lease_ms=lease_ms)
            for lane in renew:
                if lane.id in kept:
                    lane.lease_until = max(lane.lease_until, now_ms + lease_ms)
                else:  # the lease ended before the log was asked: another dispatcher sends its events
                    state.drop(lane)
        await self._lease_release.release(self._plan().release)
        self._commits.retry_refused()
        self._reader.retry_reads()
        if state.tails:
            newest = await self._store.last_sequences(list(state.tails))
            unread = {stream for stream, sequence in newest.items() if self._unread(stream, sequence)}
            for stream in unread:
                self._reader.wake_lanes(stream)
            self._claims.suspect(unread)
        await self._endpoint_sync.note_health()

    def _plan(self) -> Plan:
        state = self._state
        # without room, lanes do not linger: others wait for their slots
        linger_ms = self._linger_ms if state.free_lanes > 0 else 0
        return plan(state.lanes.values(), self._clock.now_ms(), lease_ms=state.lease_ms, linger_ms=linger_ms)

    async def _follow_clock(self) -> None:
        """Runs before any claim: after the clock was set forward, all leases seem expired and all retries due."""
        if self._look_again_at is not None and self._clock.steady_ms() >= self._look_again_at:
            # an append of a process that had not followed yet made its lanes due by a clock that was ahead
            await self._store.shift(0, beyond=self._clock.now_ms())
            self._look_again_at = None
        if (jump := self._jumps.poll()) is None:
            return
        log.warning("the clock was set by %+.1f s: scheduled deliveries move along", jump.by_ms / 1000)
        if self._state.shares.rank == 0:  # dispatchers share the clock, and each would move the log's times once more
            await self._store.shift(jump.by_ms, beyond=jump.beyond)
            self._look_again_at = self._clock.steady_ms() + ALL_FOLLOW_MS
        self._state.shift(jump, self._clock.now_ms())
        self._jumps.followed(jump)

    async def _follow_fleet(self) -> None:
        """Take this dispatcher's share of the work, and give back what is another's."""
        state = self._state
        if state.shares.poll():
            log.info("%d dispatchers share the deliveries", state.shares.size)
            state.take_shares()
            self._claims.handed_over()
            state.request_claim()
            state.parked_claim_requested = True
            await self._lease_release.hand_over()
        if ended := set(self._ended()) - self._freed:
            await self._store.free(ended)
            self._freed |= ended
            state.request_claim()

    async def _wait_for_work(self, seconds: float) -> None:
        """Wait for a ring that requires a claim, for lanes to release, for the next retry, or for the sweep.

        The last call ends the wait even if the round before has answered its claim.
        """
        state, loop = self._state, asyncio.get_running_loop()
        sweep_at = loop.time() + seconds
        while not (
            state.claim_requested or state.parked_claim_requested or state.withdrawing or self._last_claim_pending()
        ):
            wait = sweep_at - loop.time()
            if state.retries.earliest is not None:
                wait = min(wait, (state.retries.earliest - self._clock.now_ms()) / 1000)
            if wait <= 0:
                return
            state.wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await state.wake.wait()

    def _last_claim_pending(self) -> bool:
        return self._last_claim and not self._closed.is_set()

    def _take_request(self) -> bool:
        """Whether a ring or a retry requires a claim."""
        requested, self._state.claim_requested = self._state.claim_requested, False
        due = self._state.retries.take_due(self._clock.now_ms())
        self._state.due |= due - self._state.everywhere.keys()
        return bool(due) or requested

    def _unread(self, stream: int, sequence: int) -> bool:
        tail = self._state.tails.get(stream)
        return tail is not None and not tail.more and not tail.reading and sequence > tail.end
