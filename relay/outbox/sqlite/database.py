"""The log in a SQLite file: WAL, every commit synced, one statement per batch.

A batch is one statement: the driver releases the interpreter lock around every statement. In a busy process, a
statement per row therefore holds the write lock until the interpreter was reacquired as many times (30 to 115 ms
instead of 7 to 13). The statements of every delivery and every append bind a parameter per value, and are a transaction
by themselves (:mod:`relay.outbox.sqlite.triggers`); statements of any size take one JSON parameter, whose rows take
SQLite three times as long.
"""
# ruff: noqa: S608 - the statements are put together from the names in this file

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from operator import attrgetter
from pathlib import Path
from sqlite3 import SQLITE_FULL
from sqlite3 import Connection as Driver
from sqlite3 import Error as DriverError
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from relay.errors import OutboxError
from relay.outbox.failure import broken
from relay.outbox.records import (
    OVERDUE_MS,
    Attempt,
    Growth,
    Lane,
    LanesWanted,
    Record,
    Settlement,
    leased,
)
from relay.outbox.schema import METADATA
from relay.outbox.sqlite import reserved_names, triggers
from relay.outbox.sqlite.doorbell import DatagramBell, DatagramDoorbell
from relay.outbox.sqlite.file_guard import FileGuard
from relay.outbox.sqlite.rows import SEPARATOR, keyed_records
from relay.outbox.sqlite.triggers import execute, parameters
from relay.outbox.sqlite.write_lock import WriteLock
from relay.outbox.upgrade import require_known, revision, upgrade
from relay.private_files import create_private, make_private_directory, tighten, tighten_directory

_PRAGMAS = (
    "busy_timeout=5000",  # a backstop: the lock file queues the writers
    "journal_mode=WAL",
    "synchronous=FULL",  # NORMAL may lose the last commits at a power loss
    "cache_size=-32768",  # KiB
    "temp_store=MEMORY",
    "secure_delete=ON",  # deleted data leaves the file; it costs nothing that could be measured
)
_SEQUENCE = attrgetter("sequence")
_REWRITTEN = 128 << 20
"""Bytes of a file that is small enough to be rewritten while appends wait: about a second."""
_PROVE_WRITABLE = "UPDATE alembic_version SET version_num = version_num"
"""SQLite opens a read-only file, and begins a transaction on it, without an error."""


def _batch(*names: str) -> str:
    """The rows of one JSON parameter, an array of arrays, as a table ``v``."""
    columns = ", ".join(f"json_extract(value, '$[{n}]') AS {name}" for n, name in enumerate(names))
    return f"(SELECT key, {columns} FROM json_each(?)) v"


_HELD = "lanes.lane = v.lane AND lanes.fence = v.fence AND lanes.owner IS NOT NULL"
_DUE = """
SELECT l.lane, l.endpoint, l.sid, l.cursor, l.last_sent, l.attempts, l.fence + 1, l.failing_since, s.room, s.participant
FROM lanes l JOIN streams s ON s.sid = l.sid
WHERE l.endpoint = ? AND l.next_at <= ? AND (l.sid % ? = ? OR l.next_at <= ?)
    AND EXISTS (SELECT 1 FROM endpoints WHERE name = ? AND active AND disabled_at IS NULL)
ORDER BY l.next_at LIMIT ?"""
_TAKE = "UPDATE lanes SET owner = ?, fence = fence + 1, next_at = ? WHERE lane IN (SELECT value FROM json_each(?))"
_RELEASE_UNTIL = f"""
UPDATE lanes SET next_at = v.next_at, owner = NULL, failing_since = v.failing_since, failed_at = v.failed_at,
outage = v.outage FROM {_batch("lane", "fence", "next_at", "failing_since", "failed_at", "outage")} WHERE {_HELD}"""
_RENEW = f"""
UPDATE lanes SET next_at = ? FROM {_batch("lane", "fence")} WHERE {_HELD} RETURNING lane"""
_RELEASE = f"""
UPDATE lanes SET owner = NULL,
next_at = CASE WHEN cursor < (SELECT last_sequence FROM streams WHERE streams.sid = lanes.sid) THEN ? END
FROM {_batch("lane", "fence")} WHERE {_HELD}"""
_READ = f"""
SELECT json_group_array(json_array(v.key, e.sequence, e.id, e.type, e.delivery, e.utterance, e.revision,
e.emitted_at, e.expires_at, e.closes)), CAST(group_concat(e.body, char({SEPARATOR[0]})) AS BLOB)
FROM {_batch("sid", "after", "most")}
CROSS JOIN events e ON e.sid = v.sid AND e.sequence BETWEEN v.after + 1 AND v.after + v.most"""
_RANGES_PER_READ = 16
"""Limits what one statement gathers: 16 times 64 events of 256 KiB at most."""


@cache
def _record_attempts(rows: int) -> str:
    return f"""
INSERT INTO attempts (lane, sequence, number, at, stage, status, elapsed_ms) VALUES {parameters(rows, 7)}"""


class SQLite:
    """A database file with its lock file (``….lock``), reserved names (``….NAME``) and doorbell. The doorbell is in the
    directory for temporary files. Only this user may read any of them.

    Opening it creates or upgrades the tables; raises ``OutboxError`` if it cannot be used.
    """

    retry_s = 10.0
    clock = None  # the processes are on one host
    concurrent = claims_at_once = False

    def __init__(self, path: str, *, unfinished: bool = False, or_newer: bool = False) -> None:
        self._path = _resolved(Path(path))
        self.place = str(self._path)
        self._reserved = ExitStack()
        self._file_guard = FileGuard(self._path)
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=self.place),
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"check_same_thread": False},
        )
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        with ExitStack() as on_failure:
            try:
                self._make_directory()
                self._write_lock = WriteLock(self._path.with_name(f"{self._path.name}.lock"))
                on_failure.callback(self._write_lock.close)
                # The lock comes before the connection: several processes that open a new file at once would conflict
                # when it is switched to WAL.
                with self._write_lock.taken():
                    self._make_private()
                    with self._engine.connect() as connection, connection.begin():
                        self.found_tables = upgrade(connection, self.place, unfinished=unfinished, or_newer=or_newer)
                    self._prove_writable()
            except (sa.exc.DBAPIError, OSError) as error:
                raise broken(self.place, error) or error from error
            on_failure.pop_all()

    def _prove_writable(self) -> None:
        try:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(_PROVE_WRITABLE)
        except sa.exc.OperationalError as error:
            # reading needs no space, and a later write fails with the same error
            if getattr(error.orig, "sqlite_errorcode", None) != SQLITE_FULL:
                raise

    def _make_directory(self) -> None:
        try:
            make_private_directory(self._path.parent)
        except FileNotFoundError as error:  # more than the last part is missing: probably a wrong path
            raise OutboxError(f"outbox {self.place}: there is no directory {self._path.parent}: create it") from error

    def _make_private(self) -> None:
        # SQLite gives the files beside the database the mode of the database; files of earlier versions may be readable
        create_private(self._path)
        for part in ("-wal", "-shm", "-journal"):
            tighten(self._path.with_name(self._path.name + part))
        tighten_directory(self._path.parent, holding=self._path.name)

    def connect_writer(self) -> sa.Connection:
        connection = self._engine.connect()
        triggers.create(connection)
        return connection

    def connect_reader(self) -> sa.Connection:
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def turn(self, connection: sa.Connection) -> Iterator[None]:
        with self._write_lock.taken():
            self._prove_present(connection)
            yield
            self._file_guard.note()

    @contextmanager
    def transaction(self, connection: sa.Connection, *, alone: bool, opens: bool = False) -> Iterator[None]:
        # each is alone
        with self.turn(connection), connection.begin():
            yield

    def standstill(self, connection: sa.Connection) -> AbstractContextManager[None]:
        return self.transaction(connection, alone=True)

    def last_numbers(self, connection: sa.Connection) -> Mapping[str, int]:
        return {row.name: row.seq for row in connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")}

    def number_after(self, connection: sa.Connection, last: Mapping[str, int]) -> None:
        # the other tables continue after their highest row
        for name in (
            table.name for table in METADATA.tables.values() if table.dialect_options["sqlite"]["autoincrement"]
        ):
            connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            connection.exec_driver_sql("INSERT INTO sqlite_sequence VALUES (?, ?)", (name, last[name]))

    def reading(self, connection: sa.Connection) -> AbstractContextManager[object]:
        return nullcontext(connection)  # each statement is a transaction by itself

    def _prove_present(self, connection: sa.Connection) -> None:
        try:
            self._file_guard.check()
        except OSError:
            # commits may be in a write-ahead log that only processes which have it open can find: copy them to the
            # database
            with suppress(DriverError):
                connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")  # outside of any transaction
            raise

    append = staticmethod(triggers.append)
    settle = staticmethod(triggers.settle)

    def claim(
        self, connection: sa.Connection, wants: Sequence[LanesWanted], owner: str, now: int, lease_until: int
    ) -> list[Lane]:
        rows: list[sa.Row[Any]] = []
        for endpoint, most, share in wants:
            overdue = None if share.only else now - OVERDUE_MS  # nothing is earlier than null
            values = endpoint, now, share.of, share.remainder, overdue, endpoint, most
            rows += connection.exec_driver_sql(_DUE, values).all()
        if rows:
            taken = json.dumps([row[0] for row in rows])
            connection.exec_driver_sql(_TAKE, (owner, lease_until, taken))
        return [leased(row, lease_until) for row in rows]

    def release_until(self, connection: sa.Connection, settlements: Sequence[Settlement]) -> None:
        rows = [(s.lane, s.fence, s.next_at, s.failing_since, s.failed_at, s.outage) for s in settlements]
        connection.exec_driver_sql(_RELEASE_UNTIL, (json.dumps(rows),))

    def record_attempts(self, connection: sa.Connection, attempts: Sequence[Attempt]) -> None:
        values = tuple(
            v for a in attempts for v in (a.lane, a.sequence, a.number, a.at, a.stage, a.status, a.elapsed_ms)
        )
        connection.exec_driver_sql(_record_attempts(len(attempts)), values)

    def renew(self, connection: sa.Connection, lanes: Sequence[tuple[int, int]], lease_until: int) -> frozenset[int]:
        return frozenset(connection.exec_driver_sql(_RENEW, (lease_until, json.dumps(lanes))).scalars())

    def release(self, connection: sa.Connection, lanes: Sequence[tuple[int, int]], now: int) -> None:
        connection.exec_driver_sql(_RELEASE, (now, json.dumps(lanes)))

    def read(self, connection: sa.Connection, wants: Sequence[tuple[int, int, int]]) -> list[list[Record]]:
        found: list[list[Record]] = []
        for start in range(0, len(wants), _RANGES_PER_READ):
            found += _read(connection, wants[start : start + _RANGES_PER_READ])
        return found

    def reserve(self, name: str) -> None:
        try:
            self._reserved.callback(reserved_names.reserve(self._path, name).close)
        except OSError as error:
            raise broken(self.place, error) or error from error

    def break_off(self) -> None:
        """A file always answers."""

    def close(self) -> None:
        self._write_lock.close()
        self._reserved.close()

    def read_clock(self, connection: sa.Connection) -> None:
        pass

    def bell(self, _writer: sa.Connection) -> DatagramBell:
        return DatagramBell(self._path)

    def listen(self, rung: Callable[[Growth], None]) -> DatagramDoorbell:
        return DatagramDoorbell(self._path, rung)

    def scrub(self, *, rewrite: bool) -> bool:
        # Deleted bytes are overwritten in place. Copies remain where rows had been moved between pages, which only a
        # rewrite of the file removes, and in the WAL.
        write_lock = WriteLock(self._path.with_name(f"{self._path.name}.lock"))
        try:
            with write_lock.taken(), self.connect_reader() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout=500")  # every append waits meanwhile
                rewrite = rewrite or self._path.stat().st_size <= _REWRITTEN
                if rewrite:
                    connection.exec_driver_sql("VACUUM")
                busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
                return rewrite and not busy
        except (sa.exc.DBAPIError, OSError) as error:
            raise broken(self.place, error) or error from error
        finally:
            write_lock.close()


def require_free(path: Path, name: str) -> None:
    """Require that no process has this name of the log in this file. Changes nothing. Raises ``NameTaken``."""
    reserved_names.require_free(_resolved(path), name)


def require_log(path: Path) -> None:
    """Require that a process can use the log in this file. Changes nothing. Raises ``OutboxError``."""
    place = str(path)
    # without `immutable`, SQLite creates files beside the database
    address = sa.URL.create("sqlite", database=f"file:{quote(place)}", query={"immutable": "1", "uri": "true"})
    engine = sa.create_engine(address, poolclass=NullPool, hide_parameters=True)
    try:
        with engine.connect() as connection:
            require_known(revision(connection, place), place)
    except sa.exc.DBAPIError as error:
        raise broken(place, error) or error from error


def _resolved(path: Path) -> Path:
    """One name for each database. The database itself must not be a link: another user may have put it there."""
    return path.parent.resolve() / path.name


def _configure(driver: Driver, _entry: ConnectionPoolEntry) -> None:
    driver.isolation_level = None  # transactions begin where we say so
    for pragma in _PRAGMAS:
        driver.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _read(connection: sa.Connection, wants: Sequence[tuple[int, int, int]]) -> list[list[Record]]:
    # All of it in one row: the driver reacquires the interpreter lock for every row.
    found: list[list[Record]] = [[] for _ in wants]
    columns, bodies = execute(connection, _READ, (json.dumps(wants),))[0]
    if bodies is None:
        return found
    for want, record in keyed_records(json.loads(columns), bodies.split(SEPARATOR)):
        found[want].append(record)
    for records in found:
        records.sort(key=_SEQUENCE)  # usually in order already, but the statement does not guarantee it
    return found
