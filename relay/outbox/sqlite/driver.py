"""Statements for SQLite's driver itself, past SQLAlchemy: those that every delivery and every append needs.

SQLAlchemy would begin a transaction around each of them, and takes longer than a short statement does.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa


def execute(connection: sa.Connection, statement: str, values: Sequence[object]) -> Sequence[tuple[Any, ...]]:
    """Execute it in the transaction that is open, else as one by itself; its rows. Raises SQLAlchemy's errors."""
    with _errors_wrapped():
        cursor = connection.connection.cursor()
        cursor.execute(statement, values)
        return cursor.fetchall()


def execute_script(connection: sa.Connection, script: str) -> None:
    """Execute statements, without values, on a connection that is in no transaction. Raises SQLAlchemy's errors."""
    with _errors_wrapped():
        connection.connection.cursor().executescript(script)


@contextmanager
def _errors_wrapped() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # the driver's words only: statement and values hold what people said
        raise sa.exc.DBAPIError.instance(None, None, error, sqlite3.Error) from error
