"""Sessions outside of SQLAlchemy: for rings, for locks that last as long as a session, and to ask about a database."""
# ruff: noqa: S608 - the statements are put together from the names in this file

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Lock, Timer
from typing import Any
from uuid import uuid4
from weakref import WeakSet

import psycopg
import sqlalchemy as sa

from relay.errors import OutboxError
from relay.outbox.failure import NO_SCHEMA, words
from relay.outbox.postgres.functions import FUNCTIONS
from relay.outbox.upgrade import only_version

CONNECT_ARGS: dict[str, Any] = {
    "application_name": "speech-relay",
    "client_encoding": "utf8",
    "connect_timeout": 5,
    # A server that has vanished is noticed in about ten seconds, in the middle of a statement too.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

LASTING = """
    -- a session that listens, or holds a lock, is idle for as long as its process lives
    CASE WHEN current_setting('server_version_num')::int >= 140000
        THEN set_config('idle_session_timeout', '0', false) END,
    -- a copy of a log is one transaction
    CASE WHEN current_setting('server_version_num')::int >= 170000
        THEN set_config('transaction_timeout', '0', false) END,
    -- no other schema's tables; nor its functions and operators: see relay/outbox/postgres/roles.py
    set_config('search_path', quote_ident(current_schema()::text) || ', pg_temp', false),
    -- an error, in place of rows that are left out
    set_config('row_security', 'off', false),
    -- a commit that was acknowledged must not be lost
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"""
"""Of every session, whatever the defaults of the server, the database or the role are. Columns of a SELECT."""

OLDEST_SERVER = 130_000
"""As PostgreSQL numbers its releases. Version 12 has no type ``regcollation``."""

NAMES = 0x73706E
"""Class of the advisory locks on reserved names."""
LISTENERS = 0x73706C
"""Class of the advisory locks that listeners share."""

SILENT = "the server takes connections and gives no answer: look whether it hangs, or a pooler before it"
_BROKEN_OFF = "the server gave no answer, and the wait was given up"
ANSWERS_WITHIN_S = 20.0
"""For what a command asks in one session: to connect, to have a probe notified and to commit are limited by themselves,
and add up to this."""

_PROBE = "speech_relay_probe"
"""A channel: see ``require_session``."""
_PROBE_SECONDS = 5.0
"""Maximum for a notification to arrive. It takes milliseconds."""
COMMITS_WITHIN_S = 10.0
"""Maximum for a commit of ``check``. It takes milliseconds."""

_LISTENED = f"""
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = {LISTENERS} AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
LOGS_SCHEMA = "quote_ident(current_schema()::text)::regnamespace::oid"
"""Its number, whatever its name is: a cast reads a name as SQL does."""
_HAS_TABLES = "SELECT to_regclass('alembic_version') IS NOT NULL"
_VERSIONS = "SELECT coalesce(array_agg(version_num::text), '{}'::text[]) FROM alembic_version"
_HAS_STREAMS = "SELECT to_regclass('streams') IS NOT NULL"
_MAY_WRITE = f"""
SELECT NOT EXISTS (
    SELECT FROM pg_class c
    WHERE c.relnamespace = {LOGS_SCHEMA} AND c.relkind = 'r' AND c.relname = ANY(%s::name[])
        AND NOT (has_table_privilege(c.oid, 'SELECT'::text) AND has_table_privilege(c.oid, 'INSERT'::text)
            AND has_table_privilege(c.oid, 'UPDATE'::text) AND has_table_privilege(c.oid, 'DELETE'::text)))
AND NOT EXISTS (
    SELECT FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'a' JOIN pg_class t ON t.oid = d.refobjid
    WHERE c.relnamespace = {LOGS_SCHEMA} AND t.relname = ANY(%s::name[])
        AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'USAGE'::text) END)
AND NOT EXISTS (
    SELECT FROM pg_proc p WHERE p.pronamespace = {LOGS_SCHEMA} AND p.proname = ANY(%s::name[])
        AND NOT has_function_privilege(p.oid, 'EXECUTE'::text))"""
_MAY_UPGRADE = """
SELECT pg_has_role(c.relowner, 'USAGE'::text) FROM pg_class c WHERE c.oid = to_regclass('alembic_version')::oid"""
_MAY_CREATE = "SELECT has_schema_privilege(current_schema(), 'CREATE')"


class OpenSessions:
    """The sessions of one process, which can be broken off from any thread.

    A server that is frozen, or something on the way to it, may take what is sent and never answer: the kernel's limits
    do not see that, and a thread waits in its statement without end.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: WeakSet[psycopg.Connection[Any]] = WeakSet()
        self.is_over = False
        """Whether they were broken off."""

    def add(self, session: "psycopg.Connection[Any]") -> None:
        """Raises psycopg's error for a lost session if they were broken off."""
        with self._lock:
            self._open.add(session)
        self.require_not_over()

    def require_not_over(self) -> None:
        """Raises psycopg's error for a lost session if they were broken off."""
        if self.is_over:
            raise psycopg.OperationalError(_BROKEN_OFF)

    def break_off(self) -> None:
        """Fail every statement that is under way, and every later one."""
        with self._lock:
            self.is_over = True
            sessions = list(self._open)
        for session in sessions:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(session.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)


def after(seconds: float, call: Callable[[], object]) -> Timer:
    """Call it after so many seconds, on a thread, unless it is cancelled."""
    timer = Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


def connect(url: sa.URL, sessions: OpenSessions) -> "psycopg.Connection[Any]":
    """Connect until it is closed, with every statement a transaction by itself. Raises psycopg's errors."""
    # As SQLAlchemy connects: written as an address, a blank in a parameter would become a +, which libpq keeps.
    dialect = url.set(drivername="postgresql+psycopg").get_dialect()()
    _, parameters = dialect.create_connect_args(url)
    session = psycopg.connect(**{**parameters, **CONNECT_ARGS}, autocommit=True)
    try:
        sessions.add(session)
        configure(session, LASTING)
    except BaseException:
        session.close()
        raise
    return session


@contextmanager
def asking(url: sa.URL, place: str) -> Iterator[tuple["psycopg.Connection[Any]", OpenSessions]]:
    """A session for some questions, which are to be answered soon. Raises ``OutboxError`` if they are not."""
    sessions = OpenSessions()
    impatience = after(ANSWERS_WITHIN_S, sessions.break_off)
    try:
        with connect(url, sessions) as session:
            yield session, sessions
    except psycopg.Error as error:
        raise OutboxError(f"outbox {place}: {SILENT if sessions.is_over else words(error)}") from error
    finally:
        impatience.cancel()


def configure(session: "psycopg.Connection[Any]", settings: str) -> None:
    """Apply the settings, written as columns of a SELECT. Raises psycopg's errors.

    One of them is for a server that takes no writes: after a failover, the address may lead to the former primary for
    a while. A session with that one would last, and every write in it fail.
    """
    row = session.execute(f"SELECT current_setting('transaction_read_only'), {settings}").fetchone()
    if row is not None and row[0] == "on":
        raise psycopg.OperationalError("the server is read-only, as a standby is")


def require_version(place: str, session: "psycopg.Connection[Any]") -> None:
    """Require a server with everything that the statements need. Raises ``OutboxError``."""
    found, needed = session.info.server_version // 10_000, OLDEST_SERVER // 10_000
    if found < needed:
        raise OutboxError(
            f"outbox {place}: the server is PostgreSQL {found}, and the relay needs {needed} or newer: upgrade it, or "
            "name another server in outbox.url"
        )


def require_utf8(place: str, session: "psycopg.Connection[Any]") -> None:
    """Require the encoding of the log. Raises ``OutboxError`` for another one, in which the driver may read no text."""
    (encoding,) = session.execute("SELECT current_setting('server_encoding')").fetchone() or ("",)
    name = encoding.decode() if isinstance(encoding, bytes) else encoding
    if name != "UTF8":
        cure = "create it with createdb --template template0 --encoding UTF8"
        raise OutboxError(f"outbox {place}: the database's encoding is {name}: {cure}")


def require_session(url: sa.URL, place: str, session: "psycopg.Connection[Any]", sessions: OpenSessions) -> None:
    """Require that sessions last as long as their connections. ``session`` is one, outside of a transaction.

    Behind a pooler that changes them between transactions, locks and listening would be lost without an error. Such a
    pooler has a server's session assigned to a connection only during its transactions, so one that waits for a
    notification and executes nothing never gets it, whatever else the pooler does meanwhile.

    Raises ``OutboxError`` if they do not last, psycopg's errors if that cannot be found out.
    """
    row = session.execute("SELECT pg_backend_pid()").fetchone()
    if row is not None and row[0] == session.info.backend_pid:
        return  # no pooler: it would have given the connection a number of its own
    with connect(url, sessions) as listener:
        listener.execute(f"LISTEN {_PROBE}")
        token = uuid4().hex
        session.execute("SELECT pg_notify(%s, %s)", (_PROBE, token))
        if any(each.payload == token for each in listener.notifies(timeout=_PROBE_SECONDS)):
            return
    raise OutboxError(
        f"outbox {place}: the pooler in front of it keeps no sessions: set pool_mode = session for this database in "
        "PgBouncer, or name the server itself in outbox.url"
    )


def anybody_listens(url: sa.URL, place: str) -> bool:
    """Whether a process listens to this database, on any host. Raises ``OutboxError`` if it cannot be asked."""
    return bool(_ask(url, place, _LISTENED))


def has_tables(url: sa.URL, place: str) -> bool:
    """Whether there is a log. Raises ``OutboxError`` if it cannot be asked."""
    return bool(_ask(url, place, _HAS_TABLES))


def may_create_tables(url: sa.URL, place: str) -> bool:
    """Whether this user may create a log there. Raises ``OutboxError`` if it cannot be asked."""
    if not _ask(url, place, "SELECT current_schema() IS NOT NULL"):
        raise OutboxError(f"outbox {place}: no schema has been selected to create in: {NO_SCHEMA}")
    return bool(_ask(url, place, _MAY_CREATE))


def version_found(url: sa.URL, place: str) -> str | None:
    """The version of the log's tables. Raises ``OutboxError`` if it cannot be asked."""
    versions: list[str] = _ask(url, place, _VERSIONS)
    return only_version(versions, place, of_log=_ask(url, place, _HAS_STREAMS))


def may_write(url: sa.URL, place: str, tables: Sequence[str]) -> bool:
    """Whether this user may do to these tables what a process does. Raises ``OutboxError`` if it cannot be asked."""
    return bool(_ask(url, place, _MAY_WRITE, (list(tables), list(tables), list(FUNCTIONS))))


def may_upgrade(url: sa.URL, place: str) -> bool:
    """Whether this user owns the log's tables. Raises ``OutboxError`` if it cannot be asked."""
    return bool(_ask(url, place, _MAY_UPGRADE))


def require_commits(url: sa.URL, place: str) -> None:
    """Require that the server completes a commit, with an empty one. Raises ``OutboxError``."""
    is_late = Event()

    def give_up() -> None:
        is_late.set()
        session.cancel()  # the commit stays, and is waited for no longer

    with asking(url, place) as (session, _):
        limit = after(COMMITS_WITHIN_S, give_up)
        try:  # a message without a reader is written ahead as a change is, and the standbys confirm it
            session.execute("SELECT pg_logical_emit_message(true, 'speech-relay', '')")
        finally:
            limit.cancel()
        (standbys,) = session.execute("SELECT current_setting('synchronous_standby_names')").fetchone() or ("",)
    if is_late.is_set():
        why = (
            f"too few of the standbys in synchronous_standby_names confirm it: start them, or change {standbys!r}"
            if standbys
            else "look at the load and the disk of the server"
        )
        raise OutboxError(f"outbox {place}: a commit took more than {COMMITS_WITHIN_S:g} s: {why}")


def _ask(url: sa.URL, place: str, question: str, values: Sequence[object] = ()) -> Any:
    with asking(url, place) as (session, sessions):
        require_version(place, session)
        require_utf8(place, session)
        require_session(url, place, session, sessions)
        row = session.execute(question, values or None).fetchone()
    return row[0] if row else None
