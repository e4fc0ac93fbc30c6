"""What this process knows of the others that work on its log, and the duties that one of them does for all."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from relay.app.orphans import job_name
from relay.app.status import is_gone, this_host
from relay.clock import Clock
from relay.errors import OutboxError
from relay.outbox.log.processes import Duty, ProcessState, running_or_lost, standing
from relay.outbox.outbox import Outbox
from relay.telemetry.log_dedup import Outage

EVERY_S = 0.5
"""Seconds between two looks."""

SILENT_AFTER_MS = 3_000
"""A process that has not reported for this long does not work: its loop hangs, its machine or the network is lost."""

HUNG_AFTER_MS = 6_000
"""A worker of this machine whose process exists, and whose jobs are silent too, is lost after this long: it hangs, or
the machine is busy. One of another machine is lost after ``SILENT_AFTER_MS``."""

DOUBT_AFTER_MS = 2_000
"""Where this process did not get its own report into the log, or did not look, for this long, the others could not
report either. Together with the second between two reports, less than ``SILENT_AFTER_MS``."""

LONG_AGO_MS = 60_000
"""A report that is older than this when it is first seen is no live process's, however far apart the clocks are."""

log = logging.getLogger(__name__)


class Silence:
    """For how long others have reported nothing new, by this process's clock: those of two machines differ."""

    def __init__(self, own: str) -> None:
        """``own``: the name under which the caller reports."""
        self._own = own
        self._news: dict[str, tuple[int, int]] = {}
        """What was last reported under each name, a wall time, and since when that is known."""
        self._looked_at = 0

    def heard(self, reports: Mapping[str, int], now_ms: int, steady_ms: int) -> None:
        """Take what is in the log now: by name, the wall time of the last report."""
        news = {}
        for name, at in reports.items():
            known = self._news.get(name)
            if known is not None and known[0] == at:
                news[name] = known
            else:
                is_old = known is None and now_ms - at > LONG_AGO_MS
                news[name] = at, steady_ms - LONG_AGO_MS if is_old else steady_ms
        own_since = news[self._own][1] if self._own in news else 0
        if steady_ms - min(own_since, self._looked_at) > DOUBT_AFTER_MS:
            forgotten = steady_ms - LONG_AGO_MS
            news = {name: (at, since if since <= forgotten else steady_ms) for name, (at, since) in news.items()}
        self._news, self._looked_at = news, steady_ms

    def of(self, name: str, steady_ms: int) -> int:
        """Milliseconds since something new was reported under this name; very many if nothing ever was."""
        known = self._news.get(name)
        return LONG_AGO_MS if known is None else steady_ms - known[1]


class Fleet:
    """The processes of the log, as of the last look. ``process`` is this one.

    ``sole``: no other process may deliver from this log, so that others that did have ended.
    """

    def __init__(self, outbox: Outbox, clock: Clock, process: str, *, sole: bool = False) -> None:
        self._outbox, self._clock, self.process, self._sole = outbox, clock, process, sole
        self._silence = Silence(process)
        self.states: tuple[ProcessState, ...] = ()
        """Every process that is remembered, the newest first."""
        self._differing: set[str] = set()
        """Endpoints that only some of the dispatchers have in their configuration."""
        self.lost_workers: frozenset[str] = frozenset()
        """Other processes that listened, and whose jobs have ended with them."""

    async def look(self) -> None:
        """Read what the others say of themselves. Raises ``OutboxError``."""
        states = tuple(await self._outbox.processes())
        workers = [state for state in states if state.id != self.process and listens(state)]
        beats = await self._outbox.newest_beats() if workers else {}
        reports = {state.id: state.seen_at for state in states}
        for state in workers:
            jobs = job_name(state.id, None)
            if ages := [at for name, at in beats.items() if name.startswith(jobs)]:
                reports[jobs] = max(ages)
        self._silence.heard(reports, self._clock.now_ms(), self._clock.steady_ms())
        self.states = states
        self._tell_differences()
        self.lost_workers = frozenset(state.id for state in workers if self._is_lost(state))

    def _tell_differences(self) -> None:
        of = {state.id: frozenset(state.endpoints) for state in self.working() if delivers(state)}
        every = frozenset[str]().union(*of.values())
        differing = {name for names in of.values() for name in every - names} if self.process in of else set()
        if differing - self._differing:
            log.warning(
                "the dispatchers of this log have different endpoints: not all have %s; each sends to its own. Give all"
                " the same, and see `speech-relay status`",
                ", ".join(sorted(differing)),
            )
        self._differing = differing

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
        return any(
            state.ready_at is not None and not state.waits_for
            for state in self.working()
            if state.id != self.process and listens(state)
        )

    def workers_hang(self) -> bool:
        """Whether another worker has been silent for some time, but not for long: it hangs, or its machine is lost."""
        steady = self._clock.steady_ms()
        return any(
            listens(state)
            and not self._has_ended(state)
            and SILENT_AFTER_MS < self._silence.of(state.id, steady) < LONG_AGO_MS
            for state in self.states
        )

    def dispatchers(self) -> list[str]:
        """The processes that deliver now, this one too if it does, in an order that all of them see."""
        return sorted(state.id for state in self.working() if delivers(state))

    def working(self) -> Iterable[ProcessState]:
        """The processes that work now, this one too, the newest first."""
        steady = self._clock.steady_ms()
        return (
            state
            for state in self.states
            if not self._has_ended(state) and self._silence.of(state.id, steady) <= SILENT_AFTER_MS
        )

    def ended(self) -> Collection[str]:
        """The processes that have certainly ended: what they held is free."""
        return {state.id for state in self.states if self._has_ended(state)}

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many processes there are of each role and in each state, this one too."""
        now, ended = self._clock.now_ms(), self.ended()
        shown = running_or_lost(self.states, now)
        return Counter((state.role, standing(state, now, gone=state.id in ended)) for state in shown)

    def is_here(self, process: str) -> bool:
        """Whether a process runs, or ran, where this one can see its jobs' process ids."""
        return any(state.id == process and state.host == this_host() for state in self.states)

    def is_lost(self, process: str) -> bool:
        """Whether a process has ended together with its jobs."""
        return process in self.lost_workers

    def _has_ended(self, state: ProcessState) -> bool:
        if state.id == self.process:
            return False
        if self._sole and delivers(state):
            return True
        # a process id belongs to one process at a time: a restarted container's is often that of the former one
        return is_gone(state) or (state.pid == os.getpid() and state.host == this_host())

    def _is_lost(self, state: ProcessState) -> bool:
        """Whether it has ended, or its jobs are as silent as it is: one that only hangs has live jobs."""
        limit_ms, steady = HUNG_AFTER_MS if state.host == this_host() else SILENT_AFTER_MS, self._clock.steady_ms()
        names = state.id, job_name(state.id, None)
        return self._has_ended(state) or all(self._silence.of(name, steady) > limit_ms for name in names)


def delivers(state: ProcessState) -> bool:
    """Whether it is a process that sends to endpoints."""
    return state.role != "worker"


def listens(state: ProcessState) -> bool:
    """Whether it is a process that listens to rooms."""
    return state.role != "dispatch"


HELD_MS = 3_000
"""How long a duty stays with a process that cannot be asked: a dead machine's is taken over then."""
_RENEW_EVERY_S = 1.0


async def on_duty(
    duty: Duty,
    work: Callable[[], Awaitable[None]],
    *,
    outbox: Outbox,
    process: str,
    ended: Callable[[], Collection[str]],
) -> None:
    """Do ``work`` while this process has the duty, until cancelled; what it raises is raised here.

    The process takes the duty when no other has it, or its owner is one of those that have ``ended``. While the log
    cannot be used, no other can take it, and the one that has it goes on: two may do the work for a while where only
    one of them reaches the log, so the work must bear that.
    """
    working: asyncio.Task[None] | None = None
    outage = Outage(log, f"the duty {duty} cannot be renewed")
    try:
        while True:
            try:
                held = await outbox.hold_duty(duty, process, for_ms=HELD_MS, gone=ended())
            except OutboxError as error:
                outage.failed(error)
                held = working is not None
            else:
                outage.over()
            if held and working is None:
                log.debug("this process has the duty %s", duty)
                working = asyncio.ensure_future(work())
            elif not held and working is not None:
                log.warning("another process has the duty %s now", duty)
                await _end(working)
                working = None
            await _sleep(working)
    finally:
        if working is not None:
            await _end(working)


async def _sleep(working: "asyncio.Future[None] | None") -> None:
    """Until the duty is to be renewed, or the work is over: it raises then what that has raised."""
    if working is None:
        await asyncio.sleep(_RENEW_EVERY_S)
        return
    await asyncio.wait([working], timeout=_RENEW_EVERY_S)
    if working.done():
        working.result()


async def _end(working: "asyncio.Future[None]") -> None:
    working.cancel()
    await asyncio.wait([working])
