"""Sessions outside of SQLAlchemy: for rings, for locks that last as long as a session, and to ask about a database."""
# ruff: noqa: S608 - the statements are put together from the names in this file

from typing import Any

import psycopg
import sqlalchemy as sa

from relay.errors import OutboxError
from relay.outbox.failure import words

CONNECT_ARGS: dict[str, Any] = {
    "application_name": "speech-relay",
    "connect_timeout": 5,
    # A server that has vanished is noticed in about ten seconds, in the middle of a statement too.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

NAMES = 0x73706E
"""Class of the advisory locks on reserved names."""
LISTENERS = 0x73706C
"""Class of the advisory locks that listeners share."""

_LISTENED = f"""
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = {LISTENERS} AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
_HAS_TABLES = "SELECT to_regclass('alembic_version') IS NOT NULL"
_MAY_CREATE = """
SELECT current_schema() IS NOT NULL AND has_schema_privilege(current_schema(), 'CREATE')
    AND current_setting('transaction_read_only') = 'off'"""


def connect(url: sa.URL) -> "psycopg.Connection[Any]":
    """Connect, with every statement a transaction by itself. Raises psycopg's errors."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(address, **CONNECT_ARGS, autocommit=True)


def anybody_listens(url: sa.URL, place: str) -> bool:
    """Whether a process listens to this database, on any host. Raises ``OutboxError`` if it cannot be asked."""
    return bool(_ask(url, place, _LISTENED))


def has_tables(url: sa.URL, place: str) -> bool:
    """Whether there is a log. Raises ``OutboxError`` if it cannot be asked."""
    return bool(_ask(url, place, _HAS_TABLES))


def may_create_tables(url: sa.URL, place: str) -> bool:
    """Whether this user may create a log there. Raises ``OutboxError`` if it cannot be asked."""
    return bool(_ask(url, place, _MAY_CREATE))


def _ask(url: sa.URL, place: str, question: str) -> Any:
    try:
        with connect(url) as session:
            row = session.execute(question).fetchone()
    except psycopg.Error as error:
        raise OutboxError(f"outbox {place}: {words(error)}") from error
    return row[0] if row else None
