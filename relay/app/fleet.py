"""What this process knows of the others that work on its log."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Literal

from relay.app.orphans import job_name
from relay.app.status import is_gone, this_host
from relay.clock import Clock
from relay.errors import OutboxError
from relay.outbox.log.processes import ProcessState
from relay.outbox.outbox import Outbox

EVERY_S = 0.5
"""Seconds between two looks."""

SILENT_AFTER_MS = 3_000
"""A process that has not reported for this long does not work: its loop hangs, its machine or the network is lost."""

log = logging.getLogger(__name__)


class Fleet:
    """The processes of the log, as of the last look. ``process`` is this one."""

    def __init__(self, outbox: Outbox, clock: Clock, process: str) -> None:
        self._outbox, self._clock, self.process = outbox, clock, process
        self._states: tuple[ProcessState, ...] = ()
        self.lost_workers: frozenset[str] = frozenset()
        """Other processes that listened, and whose jobs have ended with them."""

    async def look(self) -> None:
        """Read what the others say of themselves. Raises ``OutboxError``."""
        self._states = tuple(await self._outbox.processes())
        now = self._clock.now_ms()
        beats: Mapping[str, int] = {}
        if any(works(state, now) is None for state in self._others("worker")):
            beats = await self._outbox.newest_beats()
        self.lost_workers = lost_workers(self._others("worker"), beats, now)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except OutboxError as error:
                log.debug("the other processes cannot be read: %s", error)
            await asyncio.sleep(EVERY_S)

    def others_take_rooms(self) -> bool:
        """Whether another worker accepts rooms."""
        now = self._clock.now_ms()
        return any(
            works(state, now) and state.ready_at is not None and not state.waits_for for state in self._others("worker")
        )

    def dispatchers(self) -> list[str]:
        """The processes that deliver now, this one too if it does, in an order that all of them see."""
        now = self._clock.now_ms()
        return sorted(state.id for state in self._states if delivers(state) and works(state, now))

    def ended(self) -> list[str]:
        """The processes that have delivered, and have certainly ended: what they held is free."""
        return [state.id for state in self._states if delivers(state) and is_gone(state)]

    def is_here(self, process: str) -> bool:
        """Whether a process runs, or ran, where this one can see its jobs' process ids."""
        return any(state.id == process and state.host == this_host() for state in self._states)

    def _others(self, part: Literal["worker", "dispatch"]) -> Iterable[ProcessState]:
        return (state for state in self._states if state.id != self.process and state.role in ("run", part))


def delivers(state: ProcessState) -> bool:
    """Whether it is a process that sends to endpoints."""
    return state.role != "worker"


def works(state: ProcessState, now_ms: int) -> bool | None:
    """Whether a process works; None where it has only been silent for long."""
    if is_gone(state):
        return False
    return True if now_ms - state.seen_at <= SILENT_AFTER_MS else None


def lost_workers(states: Iterable[ProcessState], beats: Mapping[str, int], now_ms: int) -> frozenset[str]:
    """Those that have ended, and those whose jobs are as silent as they are: one that only hangs has live jobs.

    ``beats``: when each writer of the log last renewed its lease, by name.
    """
    lost = set()
    for state in states:
        working = works(state, now_ms)
        jobs = [at for name, at in beats.items() if name.startswith(job_name(state.id, None))]
        if working is False or (working is None and now_ms - max(jobs, default=0) > SILENT_AFTER_MS):
            lost.add(state.id)
    return frozenset(lost)
