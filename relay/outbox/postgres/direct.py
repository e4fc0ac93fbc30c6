"""Executes the statements of every append, delivery and ring by libpq itself: one round trip each.

A cursor of SQLAlchemy's takes 0.4 ms of the interpreter for one of them, more than the server does, and one of the
driver's 0.2. What waits for the statement waits for that, too. Errors are those that SQLAlchemy raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

Value = str | bytes | int | None

_FORGOTTEN = "26000"
"""SQL's code of a prepared statement that the session does not have."""


@dataclass(frozen=True, slots=True)
class Statement:
    """With parameters ``$1``, ``$2``, …, each of which is cast."""

    name: bytes
    """By which a session prepares it."""
    text: bytes


def execute(connection: sa.Connection, statement: Statement, values: Sequence[Value]) -> list[tuple[Any, ...]]:
    """Execute a statement and return its rows: as a transaction, or as a part of the one that has begun.

    Raises ``sqlalchemy.exc.DBAPIError``; the connection is invalidated if its session was lost.
    """
    pooled = connection.connection
    session = cast("psycopg.Connection[Any]", pooled.driver_connection)
    try:
        result = _executed(session, pooled.info, statement, values)
    except psycopg.Error as error:
        lost = session.closed
        if lost:
            connection.invalidate(error)
        wrapped = sa.exc.DBAPIError.instance(
            None,
            None,
            error,
            psycopg.Error,
            hide_parameters=True,
            connection_invalidated=lost,
        )
        raise cast("sa.exc.DBAPIError", wrapped) from error
    rows = Transformer(session)
    rows.set_pgresult(result, format=Format.BINARY)
    return rows.load_rows(0, result.ntuples, tuple)


def _executed(
    session: "psycopg.Connection[Any]", info: dict[Any, Any], statement: Statement, values: Sequence[Value]
) -> PGresult:
    libpq = session.pgconn
    sent: list[Any] = [  # a null is None, which the declared types leave out
        value if value is None or isinstance(value, bytes) else str(value).encode() for value in values
    ]
    formats = [Format.BINARY if isinstance(value, bytes) else Format.TEXT for value in values]
    if libpq.transaction_status != TransactionStatus.IDLE:
        # The driver has a session forget all prepared statements after a transaction that was rolled back. To find
        # that out now would be an error that ends this one.
        return _checked(libpq.exec_params(statement.text, sent, None, formats, Format.BINARY))
    if statement.name in info:
        try:
            return _checked(libpq.exec_prepared(statement.name, sent, formats, Format.BINARY))
        except psycopg.Error as error:
            if error.sqlstate != _FORGOTTEN:
                raise
    _checked(libpq.prepare(statement.name, statement.text))
    info[statement.name] = True
    return _checked(libpq.exec_prepared(statement.name, sent, formats, Format.BINARY))


def _checked(result: PGresult) -> PGresult:
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        raise psycopg.errors.error_from_result(result)
    return result
