"""A writer's lease: while this process renews it, its streams are not taken over."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy as sa
from ulid import ULID

from relay.clock import Clock
from relay.errors import OutboxError
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.streams import forget_writer, renew_writer
from relay.telemetry.log_dedup import Outage

LEASE_MS = 6_000
"""How long a process may be silent before its streams are orphans."""
_BEATS = 3
"""Renewals per lease length."""

_log = logging.getLogger(__name__)


class Heartbeat:
    """Renews the lease three times in its length, on the event loop: a loop that hangs does not count as alive."""

    def __init__(
        self, name: str, commit: GroupCommit, clock: Clock, *, lease_ms: int, also: Callable[[sa.Connection], None]
    ) -> None:
        """``also`` is done with each renewal."""
        self._also = also
        self.writer = str(ULID())
        """This process run: a restarted process does not renew its predecessor's lease."""
        self._name, self._commit, self._clock, self.lease_ms = name, commit, clock, lease_ms
        self._task: asyncio.Task[None] | None = None
        self._beating = False
        self._clock_set_by = clock.now_ms() - clock.steady_ms()
        self._doubt_until: int | None = None
        self._outage = Outage(_log, "the lease on this process's streams could not be renewed")

    def beat(self, connection: sa.Connection) -> None:
        """Renew the lease in the caller's transaction."""
        renew_writer(connection, self.writer, self._name, self._clock.now_ms() + self.lease_ms)

    def start(self) -> None:
        """Keep renewing until closed. May be called more than once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="outbox-heartbeat")

    def others_could_beat(self) -> bool:
        """Whether live processes could renew their leases: only then does an expired one mean death.

        False while the log cannot be written or the wall clock has just been set, and for a lease's length after
        either: live processes are late then, or seem to be.
        """
        steady = self._clock.steady_ms()
        set_by = self._clock.now_ms() - steady
        if abs(set_by - self._clock_set_by) > self.lease_ms // (2 * _BEATS):
            _log.warning("the clock was set by %+.1f s", (set_by - self._clock_set_by) / 1000)
            self._doubt()
        self._clock_set_by = set_by
        return not self._beating and (self._doubt_until is None or steady >= self._doubt_until)

    async def aclose(self) -> None:
        """End the lease: streams that are still open become orphans."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        with suppress(OutboxError):  # the lease expires by itself
            await self._commit.call(lambda connection: forget_writer(connection, self.writer))

    async def _run(self) -> None:
        beat_ms = self.lease_ms // _BEATS
        while True:
            await asyncio.sleep(beat_ms / 1000)
            began, self._beating = self._clock.steady_ms(), True
            try:
                await self._commit.call(self._renew, beside=True)
            except Exception as error:  # a bug, too: without renewals the streams of a live process are ended
                self._outage.failed(error if isinstance(error, OutboxError) else type(error).__name__)
                self._doubt()
            else:
                self._outage.over()
            if self._clock.steady_ms() - began > beat_ms:
                self._doubt()
            self._beating = False

    def _renew(self, connection: sa.Connection) -> None:
        self._also(connection)
        self.beat(connection)

    def _doubt(self) -> None:
        self._doubt_until = self._clock.steady_ms() + self.lease_ms
