"""A writer's lease: while this process renews it, nobody takes its streams over."""

import asyncio
import logging
from contextlib import suppress

import sqlalchemy as sa
from ulid import ULID

from relay.clock import Clock
from relay.errors import OutboxError
from relay.outbox.commit import GroupCommit
from relay.outbox.streams import forget_writer, renew_writer

LEASE_MS = 6_000
"""How long a process may be silent before its streams are orphans."""

_log = logging.getLogger(__name__)


class Heartbeat:
    """Renews the lease three times in its length, on the event loop: a loop that hangs is not alive either."""

    def __init__(self, name: str, commit: GroupCommit, clock: Clock, *, lease_ms: int) -> None:
        self.writer = str(ULID())
        """This process, for as long as it lives: a restarted one does not prolong its predecessor's lease."""
        self._name, self._commit, self._clock, self._lease_ms = name, commit, clock, lease_ms
        self._task: asyncio.Task[None] | None = None

    def beat(self, connection: sa.Connection) -> None:
        """Renew the lease in the transaction of the caller."""
        renew_writer(connection, self.writer, self._name, self._clock.now_ms() + self._lease_ms)

    def start(self) -> None:
        """Go on renewing until closed. May be called more than once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="outbox-heartbeat")

    async def aclose(self) -> None:
        """End the lease: streams that are still open are orphans from now on."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        with suppress(OutboxError):  # the lease runs out by itself
            await self._commit.call(lambda connection: forget_writer(connection, self.writer))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            try:
                await self._commit.call(self.beat)
            except OutboxError as error:
                _log.warning("the lease on this process's streams could not be renewed: %s", error)
