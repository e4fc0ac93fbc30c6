"""Group commit: combines concurrent requests into one transaction."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from relay.clock import Clock
from relay.errors import Fenced
from relay.outbox.database import AT_ONCE, Database
from relay.outbox.failure import broken
from relay.outbox.log.batching import Batching, Haste
from relay.outbox.log.parked import put_aside
from relay.outbox.log.recovery import put_back
from relay.outbox.metrics import LogMetrics
from relay.outbox.records import Append, Attempt, Growth, Record, Settlement
from relay.outbox.schema import answers, events, lanes
from relay.telemetry.log_dedup import Outage

SLOW_S = 10.0
"""Seconds after which a transaction that has not ended is reported."""

_log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_OPERATIONS = 512


@dataclass(frozen=True, slots=True)
class Call:
    """Any other statements; an exception from it undoes them."""

    run: Callable[[sa.Connection], Any]
    grown: Callable[[Any], Iterable[int]]
    """Maps the result of ``run`` to the streams that it has appended to."""
    beside: bool
    """Whether it holds beside the transactions of other processes, and needs not be alone."""
    opens: bool
    """Whether it opens a stream: one at a time does."""
    at_once: bool
    """Whether it is one statement, which is a transaction by itself."""


Operation = Append | Settlement | Call


class _Entangled(Exception):
    """These operations conflict in one transaction: each must be done alone."""


class GroupCommit:
    """The process's single writer: up to 512 operations a transaction; one that fails does not fail the others."""

    def __init__(self, database: Database, clock: Clock, metrics: LogMetrics | None = None) -> None:
        self._database, self._clock, self._metrics = database, clock, metrics or LogMetrics()
        self._connection = database.connect_writer()
        self._bell = database.bell(self._connection)
        self._thread: Batching[Operation] = Batching("outbox-writer", self._commit, limit=_MOST_OPERATIONS)
        self._began: float | None = None
        """When the transaction that is under way began."""
        self._slow = Outage(_log, f"outbox {database.place}: a commit does not end")
        self._watch = asyncio.create_task(self._report_slow(), name="outbox-slow-commits")

    def append(self, append: Append) -> asyncio.Future[None]:
        return self._thread.submit(append)

    def settle(self, settlement: Settlement, *, awaited: bool) -> asyncio.Future[None]:
        return self._thread.submit(settlement, Haste.SOON if awaited else Haste.LATER)

    def hasten(self) -> None:
        """Commit at once what is held back to be batched."""
        self._thread.hasten()

    def call(
        self,
        run: Callable[[sa.Connection], T],
        *,
        grown: Callable[[T], Iterable[int]] = lambda _: (),
        beside: bool = False,
        opens: bool = False,
        at_once: bool = False,
    ) -> asyncio.Future[T]:
        """Run statements in the next transaction; the future has their result after the commit.

        ``grown`` maps the result to the streams that were appended to; the doorbell is rung for them. No other
        transaction of any process runs meanwhile, unless ``beside``: for what is frequent, and right beside others.
        ``opens``: it opens a stream, beside all but those that do so too. ``at_once``: it is one statement, and a
        transaction by itself before all that waits.
        """
        call = Call(run, grown, beside or opens, opens, at_once)
        return cast("asyncio.Future[T]", self._thread.submit(call, Haste.FIRST if at_once else Haste.NOW))

    async def aclose(self) -> None:
        """Write what is queued and release the database."""
        await self._thread.aclose()
        self._watch.cancel()
        await asyncio.to_thread(self._connection.close)
        self._bell.close()

    async def _report_slow(self) -> None:
        while True:
            await asyncio.sleep(SLOW_S)
            began = self._began  # the thread sets it
            if began is not None and time.perf_counter() - began >= SLOW_S:
                self._slow.failed("look at the database's disk; with a server, `speech-relay check` says more")
            else:
                self._slow.over()

    def _commit(self, operations: Sequence[Operation]) -> Sequence[object]:
        self._began = time.perf_counter()
        try:
            return self._committed(operations)
        finally:
            self._began = None

    def _committed(self, operations: Sequence[Operation]) -> Sequence[object]:
        began = time.perf_counter()
        try:
            if len(operations) == 1 and isinstance(operations[0], Call) and operations[0].at_once:
                with self._database.turn(self._connection):
                    outcomes: Sequence[object] = [operations[0].run(self._connection)]
                growth: Growth = dict.fromkeys(operations[0].grown(outcomes[0]), ())
            elif self._at_once(operations):
                outcomes = [None] * len(operations)
                growth = _growth(one for one in operations if isinstance(one, Append))
            else:
                outcomes, growth = self._transact(operations)
        except Exception as error:  # becomes the outcome for the caller
            if unusable := broken(self._database.place, error):
                return [unusable] * len(operations)
            if len(operations) == 1:
                return [error]
            return [outcome for operation in operations for outcome in self._committed([operation])]
        self._metrics.written(time.perf_counter() - began)
        if growth:
            self._bell.ring(growth)
        return outcomes

    def _at_once(self, operations: Sequence[Operation]) -> bool:
        """Whether one statement did it all, as usual. Otherwise nothing is done."""
        appends = [one for one in operations if isinstance(one, Append)]
        settlements = [one for one in operations if isinstance(one, Settlement) and one.goes_on]
        if len(operations) not in (len(appends), len(settlements)) or sum(len(a.records) for a in appends) > AT_ONCE:
            return False
        if any(has_answer(one.tries) for one in settlements):
            return False
        now = self._clock.now_ms()
        with self._database.turn(self._connection):
            if appends:
                return self._database.append(self._connection, appends, now)
            return self._database.settle(self._connection, settlements, now)

    def _transact(self, operations: Sequence[Operation]) -> tuple[list[object], Growth]:
        """The operations' outcomes, and what has grown."""
        outcomes: dict[int, object] = {}
        told: set[int] = set()
        appends = [(n, o) for n, o in enumerate(operations) if isinstance(o, Append)]
        settlements = [(n, o) for n, o in enumerate(operations) if isinstance(o, Settlement)]
        opens = any(isinstance(one, Call) and one.opens for one in operations)
        with self._database.transaction(self._connection, alone=any(map(_alone, operations)), opens=opens):
            if appends:
                outcomes |= self._append(appends, alone=len(operations) == 1)
            if settlements:
                settled, put_aside_of = self._settle(settlements)
                outcomes |= settled
                told |= put_aside_of
            for n, operation in enumerate(operations):
                if isinstance(operation, Call):
                    outcomes[n] = operation.run(self._connection)
                    told.update(operation.grown(outcomes[n]))
        appended = _growth(append for n, append in appends if outcomes[n] is None)
        return [outcomes[n] for n in range(len(operations))], appended | dict.fromkeys(told, ())

    def _append(self, appends: Sequence[tuple[int, Append]], *, alone: bool) -> dict[int, object]:
        if self._database.append(self._connection, [append for _, append in appends], self._clock.now_ms()):
            return {n: None for n, _ in appends}
        if not alone:
            raise _Entangled
        return {n: self._why_not(append) for n, append in appends}

    def _why_not(self, append: Append) -> Fenced | None:
        """Why a stream's head did not move: another writer has it now, or this very append was committed before.

        The latter happens when a commit was reported as failed, but succeeded.
        """
        last = append.records[-1]
        there = sa.select(events.c.body).where(events.c.sid == append.stream, events.c.sequence == last.sequence)
        if self._connection.execute(there).scalar() == last.body:
            return None
        return Fenced("the stream was taken over or closed: this process must not append to it any more")

    def _settle(self, settlements: Sequence[tuple[int, Settlement]]) -> tuple[dict[int, object], frozenset[int]]:
        database, connection, now = self._database, self._connection, self._clock.now_ms()
        newest: dict[int, Settlement] = {}
        for _, settlement in settlements:
            earlier = newest.get(settlement.lane)
            if earlier and (earlier.fence != settlement.fence or earlier.next_at is not None):
                raise _Entangled
            newest[settlement.lane] = settlement
        lost: set[int] = set()
        held = [settlement for _, settlement in settlements]
        if not database.settle(connection, held, now):
            owned = sa.select(lanes.c.lane, lanes.c.fence).where(lanes.c.lane.in_(newest), lanes.c.owner.is_not(None))
            fences = {row.lane: row.fence for row in connection.execute(owned)}
            lost = {lane for lane, settlement in newest.items() if fences.get(lane) != settlement.fence}
            held = [settlement for settlement in held if settlement.lane not in lost]
            database.settle(connection, held, now)
            # An attempt was made, whichever dispatcher holds the lane now.
            tries = [
                attempt for _, settlement in settlements if settlement.lane in lost for attempt in settlement.tries
            ]
            if tries:
                database.record_attempts(connection, tries)
        keep_answers(connection, (attempt for settlement in held for attempt in settlement.tries))
        if retried := [settlement for settlement in held if settlement.next_at is not None]:
            database.release_until(connection, retried)
            if failed_with_endpoint := [settlement.lane for settlement in retried if settlement.outage]:
                put_back(connection, failed_with_endpoint, now, None, due=False)
        kept = [settlement for settlement in held if settlement.dead or settlement.parked]
        told = put_aside(connection, database, kept, now) if kept else frozenset()
        outcomes: dict[int, object] = {
            n: Fenced("the lane was claimed by another dispatcher") if settlement.lane in lost else None
            for n, settlement in settlements
        }
        return outcomes, told


def _alone(operation: Operation) -> bool:
    """Whether no other transaction may run meanwhile: parking and giving up report it, on a stream of the relay's."""
    match operation:
        case Call(beside=beside):
            return not beside
        case Settlement(dead=dead, parked=parked, next_at=next_at, outage=outage):
            return bool(dead or parked or (outage and next_at is not None))
        case _:
            return False


def _growth(appends: Iterable[Append]) -> dict[int, Sequence[Record]]:
    growth: dict[int, list[Record]] = {}
    for append in appends:
        growth.setdefault(append.stream, []).extend(append.records)
    return dict(growth)


# The beginnings of answers, kept beside their attempts: few endpoints ask for it, and the others pay nothing.


def has_answer(tries: Iterable[Attempt]) -> bool:
    return any(attempt.answer is not None for attempt in tries)


def keep_answers(connection: sa.Connection, tries: Iterable[Attempt]) -> None:
    """Write the answers of these attempts, if any has one to be kept.

    Only of what is still held: where data was purged meanwhile, an answer may repeat it.
    """
    rows = [
        {
            "lane": attempt.lane,
            "sequence": attempt.sequence,
            "number": attempt.number,
            "at": attempt.at,
            "text": attempt.answer,
        }
        for attempt in tries
        if attempt.answer is not None
    ]
    if rows:
        connection.execute(sa.insert(answers), rows)
