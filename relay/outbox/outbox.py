"""The outbox: the durable log of events, one per stream."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import count
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa

from relay.clock import Clock
from relay.errors import NameTaken, OutboxError
from relay.events.envelope import Model
from relay.events.operator import RelayEvent
from relay.outbox.database import Database, Doorbell
from relay.outbox.log import streams
from relay.outbox.log.api_endpoints import ApiEndpoints
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.heartbeat import LEASE_MS, Heartbeat
from relay.outbox.log.lanes import Lanes
from relay.outbox.log.notices import CAPTURE, Notice, append
from relay.outbox.log.processes import (
    Duty,
    ProcessState,
    hold_duty,
    leave_duties,
    read_processes,
    write_process,
)
from relay.outbox.log.reader import Reader
from relay.outbox.log.retry import RetryWindow
from relay.outbox.log.spill import SpillFolder, SpillLimits, append_left
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.metrics import LogMetrics
from relay.outbox.opening import log_clock, log_file, opened_database
from relay.outbox.records import Growth, NewStream, Record
from relay.outbox.retention import Retention
from relay.outbox.schema import identity
from relay.outbox.schema import streams as streams_table

_SPILL_EVERY = 0.5
"""Seconds between two looks at what waits to be appended."""


class Outbox:
    """A process's access to the log. Created by :meth:`open`; every method must run on that event loop."""

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        clock: Clock,
        lease_ms: int,
        retry_s: float,
        sole: bool = False,
        metrics: LogMetrics | None = None,
    ) -> None:
        self.clock = self._clock = clock = log_clock(database, clock)
        """The clock of the log's times: the same for all processes that use it."""
        self._database, self._retrying = database, RetryWindow(retry_s)
        self._metrics = metrics or LogMetrics()
        self._commit = GroupCommit(database, clock, self._metrics)
        self._reader = Reader(database)
        self._heartbeat = Heartbeat(name, self._commit, clock, lease_ms=lease_ms, also=database.read_clock)
        self._logs: WeakSet[StreamLog] = WeakSet()
        self._spill: SpillFolder | None = None
        self._spilling: asyncio.Task[None] | None = None
        self.lanes = Lanes(name, database, self._commit, self._reader, clock, writer_lease_ms=lease_ms, sole=sole)
        """The lanes, for a dispatcher of this outbox's name."""
        self.api_endpoints = ApiEndpoints(self._commit, self._reader, clock)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str,
        clock: Clock,
        sole: bool = False,
        lease_ms: int = LEASE_MS,
        retry_s: float | None = None,
        metrics: LogMetrics | None = None,
        spill: SpillLimits | None = None,
        or_newer: bool = False,
        other_names: Sequence[str] = (),
    ) -> "Outbox":
        """Open the log, creating or upgrading its tables.

        ``name`` identifies this process: a dispatcher that restarts under its name reclaims its lanes, and with
        ``sole`` it is refused while another process of that name is alive. ``lease_ms`` is how long it may be silent
        before others take over its streams; ``retry_s``, in seconds, how long an append or the opening of a stream is
        retried while the log cannot be written, by default the database's; ``metrics`` counts what is written;
        ``spill`` is where appends wait for a server that is away for longer, not used for a file; with ``or_newer``,
        tables of a later version are used as they are. With ``sole``, ``other_names`` are tried in their order if the
        name is another process's. Raises ``OutboxError`` if the log cannot be used.
        """
        database = await opened_database(url, or_newer=or_newer)
        try:
            if sole:
                name = _reserved(database, name, *other_names)
            retry_s = database.retry_s if retry_s is None else retry_s
            outbox = cls(
                database, name=name, clock=clock, lease_ms=lease_ms, retry_s=retry_s, sole=sole, metrics=metrics
            )
        except OutboxError:
            database.close()
            raise
        if spill is not None and log_file(url) is None:
            try:
                outbox._spill = SpillFolder(spill, await outbox.identity())
            except BaseException:
                outbox.break_off()  # nothing waits to be written
                await outbox.aclose()
                raise
            outbox._spilling = asyncio.create_task(outbox._spill_what_waits(), name="outbox-spill")
        return outbox

    def break_off(self) -> None:
        """Wait for the database no longer: everything that is under way fails, and what comes later. To end all the
        same while the database does not answer."""
        self._retrying.end()
        self._database.break_off()

    async def aclose(self) -> None:
        """Write what was appended, end the lease, and release the database."""
        self._retrying.end()
        if self._spilling is not None:
            self._spilling.cancel()
            await asyncio.wait([self._spilling])
        await asyncio.gather(*(log.aclose() for log in self._logs))
        await self._heartbeat.aclose()
        await self._commit.aclose()
        await self._reader.aclose()
        self._database.close()

    async def open_stream(self, new: NewStream) -> StreamLog:
        """Open a stream, and a lane for it to every active endpoint, in one transaction.

        Retried for ``retry_s``, as an append is. Raises ``StreamTaken`` if the room's track already has an open
        stream.
        """

        attempts = count()

        def run(connection: sa.Connection) -> streams.Held:
            self._heartbeat.beat(connection)
            again = next(attempts) > 0
            return streams.open_stream(connection, new, self._heartbeat.writer, self._clock.now_ms(), again=again)

        return self._log(await self._retrying(lambda: self._commit.call(run, opens=True)))

    async def was_heard(self, track_sid: str) -> bool:
        """Whether this track has, or had, a stream, as far as the log goes back."""
        found = sa.select(sa.exists().where(streams_table.c.track_sid == track_sid))
        return bool(await self._ask(found))

    async def tell(self, kind: type[RelayEvent], data: Model) -> None:
        """Append an event about capture; does nothing if the log has no endpoint to receive it."""
        now = self._clock.now_ms()
        told = [Notice(kind, data)]
        await self._commit.call(
            lambda connection: append(connection, self._database, CAPTURE, told, now), grown=lambda grown: grown
        )

    async def orphans(self) -> list[str]:
        """Ids of the open streams whose writers have been silent for longer than their lease, oldest first.

        Empty while live writers may be silent too: see :meth:`Heartbeat.others_could_beat`.
        """
        return await self._of_the_silent(streams.orphans)

    async def last_beats(self) -> dict[str, int]:
        """When the writers of open streams last renewed their leases, by stream id, in epoch milliseconds.

        A writer whose lease was ended has no entry.
        """
        return await self._reader.query(lambda connection: streams.last_beats(connection, self._heartbeat.lease_ms))

    async def newest_beats(self) -> dict[str, int]:
        """When each writer last renewed its lease, by its name, in epoch milliseconds; not those that ended it."""
        return await self._reader.query(lambda connection: streams.newest_beats(connection, self._heartbeat.lease_ms))

    async def writers(self) -> list[str]:
        """Names of the processes that have started a lease and not ended it, dead ones included."""
        return await self._reader.query(streams.writers_named)

    async def silent(self) -> list[str]:
        """Names of the processes that have been silent for longer than their lease, dead ones included; empty while
        live processes may be silent too.
        """
        return await self._of_the_silent(streams.writers_silent)

    async def end_leases(self, names: Sequence[str]) -> None:
        """Declare the processes of these names dead: their open streams become orphans at once.

        If one of them is alive, it loses its streams, and the log is unharmed: the process is fenced off.
        """
        await self._commit.call(lambda connection: streams.forget_named(connection, names))

    async def take_over(self, stream_id: str) -> StreamLog:
        """Fence an orphan's former writer and continue in its place.

        Raises ``StreamTaken`` while its writer is alive, ``Fenced`` if the stream is closed.
        """

        def run(connection: sa.Connection) -> streams.Held:
            self._heartbeat.beat(connection)
            return streams.take_over(connection, stream_id, self._heartbeat.writer, self._clock.now_ms())

        return self._log(await self._commit.call(run))

    async def give_up(self, stream_id: str) -> None:
        """Abandon a stream that this process can no longer write, so that it is ended as an orphan."""
        await self._commit.call(lambda connection: streams.give_up(connection, stream_id, self._heartbeat.writer))

    async def append_left(self) -> None:
        """Append what processes of this machine that ended had left on disk. Raises ``OutboxError``; the rest stays."""
        if self._spill is not None:
            for file in self._spill.left():
                await append_left(file, self._commit, self._reader)

    async def history(
        self, stream_id: str, *, types: Sequence[str] = (), after: int = 0, limit: int = 1000
    ) -> list[Record]:
        """A stream's events after ``after``, in order, at most ``limit``; only those of ``types``, if any are named.

        Interims lose their bodies some minutes after they expire and are then left out.
        """
        return await self._reader.query(lambda connection: streams.history(connection, stream_id, types, after, limit))

    async def identity(self) -> str:
        """A ULID created once per database: the same for every process, and after every restart."""
        return str(await self._ask(sa.select(identity.c.id)))

    async def note_process(self, state: ProcessState) -> None:
        """Write what this process says of itself, for the others of its fleet and for ``speech-relay status``."""
        await self._commit.call(lambda connection: write_process(connection, state), beside=True)

    async def processes(self) -> list[ProcessState]:
        """Every process of the relay that runs, or ended in the last day, the newest first."""
        return await self._reader.query(read_processes)

    async def hold_duty(self, duty: Duty, process: str, *, for_ms: int, gone: Collection[str] = ()) -> bool:
        """Take a duty of the fleet that no process has, or keep it, for this long; whether the process has it.

        It is taken from processes that are ``gone`` before their time is over.
        """
        now = self._clock.now_ms()
        return await self._commit.call(
            lambda connection: hold_duty(connection, duty, process, now, now + for_ms, gone), beside=True
        )

    async def leave_duties(self, process: str) -> None:
        """Give up every duty of this process: another may take it at once."""
        await self._commit.call(lambda connection: leave_duties(connection, process), beside=True)

    def retention(self, keep_ms: int) -> Retention:
        """The task that prunes events settled for this long."""
        concurrent = self._database.concurrent
        return Retention(self._commit, self._reader, self._clock, keep_ms=keep_ms, concurrent=concurrent)

    def listen(self, rung: Callable[[Growth], None]) -> Doorbell:
        """Call ``rung`` with what has grown, in any process.

        Rings may be lost, doubled or late. Listening ends with the doorbell's ``close``.
        """
        return self._database.listen(rung)

    async def _ask(self, question: sa.Select[Any]) -> Any:
        """The answer's one value. A room's process asks nothing else, so that it needs no connection to read."""
        return await self._commit.call(lambda connection: connection.execute(question).scalar_one(), beside=True)

    async def _of_the_silent(self, find: Callable[[sa.Connection, int], list[str]]) -> list[str]:
        self._heartbeat.start()
        now = self._clock.now_ms()
        found = await self._reader.query(lambda connection: find(connection, now))
        # checked last: an earlier failure is known by now
        return found if self._heartbeat.others_could_beat() else []

    async def _spill_what_waits(self) -> None:
        while True:
            await asyncio.sleep(_SPILL_EVERY)
            for log in list(self._logs):
                log.spill_what_waits()

    def _abandon(self, held: streams.Held) -> asyncio.Future[None]:
        return self._commit.call(lambda connection: streams.abandon(connection, held, self._clock.now_ms()))

    def _log(self, held: streams.Held) -> StreamLog:
        self._heartbeat.start()
        log = StreamLog(
            held,
            self._commit.append,
            self._abandon,
            retry_s=self._retrying.seconds,
            metrics=self._metrics,
            spill=self._spill,
        )
        self._logs.add(log)
        return log


def _reserved(database: Database, *names: str) -> str:
    """Reserve the first of these names that no other process has. Raises ``OutboxError`` if each is taken."""
    for name in names[:-1]:
        with suppress(NameTaken):
            database.reserve(name)
            return name
    database.reserve(names[-1])
    return names[-1]
