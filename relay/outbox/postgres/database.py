"""The log in PostgreSQL, for processes on any number of hosts.

Transactions are READ COMMITTED. An advisory lock, shared or exclusive, says whether one may run beside others: what is
alone may rely on everything that it reads, as in SQLite. What runs beside others locks its rows
(:mod:`relay.outbox.postgres.statements`).

Streams are opened one at a time, under a second lock: so their numbers have the order of their commits.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from relay.clock import SharedClock, SystemClock
from relay.errors import NameTaken, OutboxError
from relay.outbox.failure import broken, words
from relay.outbox.postgres import statements
from relay.outbox.postgres.doorbell import NotifyBell, NotifyDoorbell
from relay.outbox.postgres.functions import FUNCTIONS, LOG, OPENING
from relay.outbox.postgres.roles import require_own
from relay.outbox.postgres.session import (
    CONNECT_ARGS,
    LASTING,
    LOGS_SCHEMA,
    NAMES,
    SILENT,
    OpenSessions,
    after,
    configure,
    connect,
    require_session,
    require_utf8,
    require_version,
)
from relay.outbox.postgres.statements import BESIDE
from relay.outbox.records import Growth
from relay.outbox.schema import METADATA, REVISION
from relay.outbox.upgrade import is_current, upgrade

_log = logging.getLogger(__name__)

_ALONE = f"SELECT pg_advisory_xact_lock({LOG})"
# In this order, and before any row: its holder then waits for no transaction that waits for it.
_OPENING = f"{BESIDE}; SELECT pg_advisory_xact_lock({OPENING})"
_SETTINGS = f"""{LASTING},
    -- A process that is stopped in mid-transaction keeps the others waiting for so long. They wait for longer: one that
    -- gave up just before would settle what it has sent after its lease.
    set_config('idle_in_transaction_session_timeout', '4s', false),
    set_config('lock_timeout', '5s', false),
    -- whatever the server's default is
    set_config('default_transaction_isolation', 'read committed', false),
    -- a copy compares numbers, which fewer digits would change
    set_config('extra_float_digits', '1', false)"""
# An index of a large table, or its rewriting, whatever limit the operator has for the statements of the role.
_AS_LONG_AS_IT_TAKES = "SET LOCAL statement_timeout = 0"
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000::numeric)::bigint"
# Between two statements a process that gets little CPU may need seconds.
_MIGRATING = (
    f"{_AS_LONG_AS_IT_TAKES}; SET LOCAL lock_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"
)
# Names are sorted, and compared with those of a page before, as in Python and SQLite.
_OTHERWISE_SORTED = f"""
SELECT quote_ident(c.relname::text) AS name, quote_ident(a.attname::text) AS attname
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = {LOGS_SCHEMA} AND c.relkind = 'r' AND c.relname = ANY(%s::name[])
    AND a.atttypid = 'text'::regtype::oid AND a.attcollation <> '"C"'::regcollation::oid"""  # noqa: S608
_SIZE = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE c.oid = ANY(%s::regclass[]::oid[])"
_SEQUENCES = """
SELECT t.name, pg_get_serial_sequence(quote_ident(t.name), a.attname::text) FROM pg_catalog.unnest(%s::text[]) t (name)
JOIN pg_attribute a ON a.attrelid = to_regclass(quote_ident(t.name))::oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE pg_get_serial_sequence(quote_ident(t.name), a.attname::text) IS NOT NULL"""
_REWRITTEN = 128 << 20
"""Bytes of tables that are small enough to be rewritten while appends wait: about a second."""


OPENS_WITHIN_S = 30.0
"""For what is asked when it is opened. An upgrade of the tables takes as long as it takes."""
SLOW_UPGRADE_S = 30.0
"""Seconds after which an upgrade that has not ended is reported."""


class Postgres:
    """A database of a PostgreSQL server. Opening it creates or upgrades the tables; raises ``OutboxError`` if it cannot
    be used."""

    retry_s = 60.0  # a standby takes over within that time
    concurrent = claims_at_once = True

    def __init__(
        self,
        url: sa.URL,
        place: str,
        *,
        unfinished: bool,
        or_newer: bool,
        breakable: Callable[[Callable[[], None]], object] | None,
    ) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self.clock = SharedClock(SystemClock())
        self.place = place
        self._reserved = ExitStack()
        self._reserving: psycopg.Connection[Any] | None = None
        """The session of the names, as soon as there is one."""
        self._has_sessions = False
        self._sessions = OpenSessions()
        # Without transactions of the driver's, which begin with a round trip of their own.
        self._engine = sa.create_engine(
            self._url,
            poolclass=QueuePool,
            pool_size=2,
            hide_parameters=True,
            connect_args=CONNECT_ARGS,
            isolation_level="AUTOCOMMIT",
        )
        sa.event.listen(self._engine, "do_connect", lambda *_: self._sessions.require_not_over())
        sa.event.listen(self._engine, "connect", self._configure, insert=True)
        if breakable is not None:
            breakable(self.break_off)
        impatience = after(OPENS_WITHIN_S, self.break_off)
        try:
            # The writer's connection is opened here, on a thread, and kept. The reader opens its own.
            with self._engine.connect() as connection:
                current = self._looked_at(connection, or_newer=or_newer)
                impatience.cancel()
                if not current:
                    impatience = after(SLOW_UPGRADE_S, self._say_that_it_takes_long)
                    self._upgrade(connection, unfinished=unfinished)
        except sa.exc.DBAPIError as error:
            self.close()
            if self._sessions.is_over:
                raise OutboxError(f"outbox {self.place}: {SILENT}") from error
            raise broken(self.place, error) or error from error
        except OutboxError:
            self.close()
            raise
        finally:
            impatience.cancel()

    def _say_that_it_takes_long(self) -> None:
        cause = "a large log, another process that has it, or a commit that does not end, as `speech-relay check` says"
        _log.warning("outbox %s: its tables are still being created or upgraded: %s", self.place, cause)

    def _configure(self, driver: "psycopg.Connection[Any]", _entry: ConnectionPoolEntry) -> None:
        self._sessions.add(driver)
        driver.autocommit = True
        if not self._has_sessions:  # before anything is set in one that may be another's next
            require_version(self.place, driver)
            require_utf8(self.place, driver)  # before SQLAlchemy reads the server's version
            require_session(self._url, self.place, driver, self._sessions)
            self._has_sessions = True
        configure(driver, _SETTINGS)

    def _looked_at(self, connection: sa.Connection, *, or_newer: bool) -> bool:
        """Whether its tables are up to date."""
        require_own(connection, self.place)
        current = is_current(connection, or_newer=or_newer)
        self.read_clock(connection)
        connection.commit()
        self.found_tables: str | None = REVISION
        return current

    def _upgrade(self, connection: sa.Connection, *, unfinished: bool) -> None:
        with _begun(connection, f"{_MIGRATING}; {_ALONE}"):
            self.found_tables = upgrade(connection, self.place, unfinished=unfinished)
            for function in FUNCTIONS.values():
                connection.exec_driver_sql(function)
            for row in connection.exec_driver_sql(_OTHERWISE_SORTED, (sorted(METADATA.tables),)).all():
                connection.exec_driver_sql(f'ALTER TABLE {row.name} ALTER {row.attname} TYPE text COLLATE "C"')
            require_own(connection, self.place)  # or what was added meanwhile would be taken for the log's

    def connect_writer(self) -> sa.Connection:
        return self._engine.connect()

    def connect_reader(self) -> sa.Connection:
        return self._engine.connect()

    def turn(self, connection: sa.Connection) -> AbstractContextManager[object]:
        return nullcontext()  # each statement is a transaction by itself

    @contextmanager
    def transaction(self, connection: sa.Connection, *, alone: bool, opens: bool = False) -> Iterator[None]:
        lock = _ALONE if alone else _OPENING if opens else BESIDE
        try:
            transaction = _begun(connection, lock)
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            transaction = _begun(connection, lock)  # the session was lost since the last transaction
        with transaction:
            yield

    @contextmanager
    def standstill(self, connection: sa.Connection) -> Iterator[None]:
        with self.transaction(connection, alone=True):
            connection.exec_driver_sql(f"{_AS_LONG_AS_IT_TAKES}; SET LOCAL idle_in_transaction_session_timeout = 0")
            yield

    def last_numbers(self, connection: sa.Connection) -> Mapping[str, int]:
        last = {}
        for name, sequence in connection.exec_driver_sql(_SEQUENCES, (sorted(METADATA.tables),)).all():
            of = sequence.replace("%", "%%")  # the driver's sign of a parameter
            given = connection.exec_driver_sql(f"SELECT last_value FROM {of} WHERE is_called").scalar()  # noqa: S608
            last[name] = given or 0
        return last

    def number_after(self, connection: sa.Connection, last: Mapping[str, int]) -> None:
        for name, sequence in connection.exec_driver_sql(_SEQUENCES, (sorted(METADATA.tables),)).all():
            if name in last:  # 0: the next is the first
                values = sequence, max(last[name], 1), last[name] > 0
                connection.exec_driver_sql("SELECT setval(%s::regclass, %s, %s)", values)

    @contextmanager
    def reading(self, connection: sa.Connection) -> Iterator[None]:
        # one state of the log for all statements of the query
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            if not connection.invalidated:
                connection.exec_driver_sql("COMMIT")  # at ROLLBACK the driver would forget its prepared statements

    append = staticmethod(statements.append)
    claim = staticmethod(statements.claim)
    settle = staticmethod(statements.settle)
    release_until = staticmethod(statements.release_until)
    record_attempts = staticmethod(statements.record_attempts)
    renew = staticmethod(statements.renew)
    release = staticmethod(statements.release)
    read = staticmethod(statements.read)

    def reserve(self, name: str) -> None:
        try:
            if self._reserving is None:
                self._reserving = connect(self._url, self._sessions)
                self._reserved.callback(self._reserving.close)
            row = self._reserving.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (NAMES, name)).fetchone()
        except psycopg.Error as error:
            raise OutboxError(f"outbox {self.place}: {words(error)}") from error
        if row is None or not row[0]:
            raise NameTaken(
                f"outbox {self.place}: another relay has it: stop that one, or give this one its own outbox.url"
            )

    def break_off(self) -> None:
        self._sessions.break_off()

    def close(self) -> None:
        self._reserved.close()
        self._engine.dispose()

    def read_clock(self, connection: sa.Connection) -> None:
        before = self.clock.steady_ms()
        there = connection.exec_driver_sql(_NOW).scalar_one()
        self.clock.measured(before, there, self.clock.steady_ms())

    def bell(self, writer: sa.Connection) -> NotifyBell:
        return NotifyBell(writer)

    def listen(self, rung: Callable[[Growth], None]) -> NotifyDoorbell:
        return NotifyDoorbell(self._url, self.place, self._sessions, rung)

    def scrub(self, *, rewrite: bool) -> bool:
        # Deleted rows stay in the tables' files until others need the place; a rewrite leaves them out. Backups,
        # standbys and the write-ahead log are the operator's.
        tables = ", ".join(sorted(METADATA.tables))
        try:
            with self.connect_reader() as connection:
                size = connection.exec_driver_sql(_SIZE, (sorted(METADATA.tables),)).scalar_one()
                rewrite = rewrite or size <= _REWRITTEN
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({LOG})")
                try:
                    connection.exec_driver_sql("SET statement_timeout = 0")
                    return _vacuumed(connection, f"VACUUM {'(FULL, VERBOSE)' if rewrite else ''} {tables}")
                finally:
                    connection.exec_driver_sql("RESET statement_timeout")
                    connection.exec_driver_sql(f"SELECT pg_advisory_unlock({LOG})")
        except sa.exc.DBAPIError as error:
            if isinstance(error.orig, psycopg.errors.LockNotAvailable):  # a reader is at work
                return False
            raise broken(self.place, error) or error from error


def _vacuumed(connection: sa.Connection, statement: str) -> bool:
    """Whether it has rewritten every table without any deleted row.

    The server skips the tables of another owner, and copies what an older transaction may still see: with a notice, and
    no error. The first number in its detail, in any language, is that of the rows that it has kept.
    """
    kept: list[str] = []
    session = cast("psycopg.Connection[Any]", connection.connection.driver_connection)

    def note(said: psycopg.errors.Diagnostic) -> None:
        if number := re.match(r"\D*(\d+)", said.message_detail or ""):
            kept.append(number[1])

    session.add_notice_handler(note)
    try:
        connection.exec_driver_sql(statement)
    finally:
        session.remove_notice_handler(note)
    return kept == ["0"] * len(METADATA.tables)


def _begun(connection: sa.Connection, first: str) -> sa.RootTransaction:
    """Begin a transaction with this statement, in one round trip."""
    transaction = connection.begin()
    try:
        connection.exec_driver_sql(f"BEGIN; {first}")
    except BaseException:
        transaction.rollback()
        raise
    return transaction
