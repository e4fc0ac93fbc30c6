"""Runs the statements of every delivery and append on SQLite's driver, bypassing SQLAlchemy.

SQLAlchemy would begin a transaction around each of them, which takes longer than a short statement.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa


def execute(connection: sa.Connection, statement: str, values: Sequence[object]) -> Sequence[tuple[Any, ...]]:
    """Execute it in the open transaction, else as one by itself; returns its rows. Raises SQLAlchemy's errors."""
    with _errors_wrapped():
        cursor = connection.connection.cursor()
        cursor.execute(statement, values)
        return cursor.fetchall()


def execute_script(connection: sa.Connection, script: str) -> None:
    """Execute statements without values, on a connection outside of a transaction. Raises SQLAlchemy's errors."""
    with _errors_wrapped():
        connection.connection.cursor().executescript(script)


@contextmanager
def _errors_wrapped() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # the driver's words only: statement and values contain what people said
        raise sa.exc.DBAPIError.instance(None, None, error, sqlite3.Error) from error
