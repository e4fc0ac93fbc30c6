"""Appends and settles in SQLite with one statement each.

A statement that stands alone is a transaction. It inserts into a view, and the view's trigger does the work row by row;
at the first row where the log is not as expected, all of it is undone. As separate statements (BEGIN, three in the
middle, COMMIT) each would release the interpreter lock and have to reacquire it from a busy event loop, while every
other writer waits.

Views and triggers belong to a connection (TEMP): they are not part of the schema.
"""
# ruff: noqa: S608 - the statements are put together from the names in this file

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import sqlalchemy as sa

from relay.outbox.database import AT_ONCE
from relay.outbox.records import Append, Settlement

_APPENDED = "now, sid, fence, sequence, id, type, delivery, utterance, revision, emitted_at, expires_at, closes, body"
_SETTLED = "now, lane, fence, cursor, last_sent, attempts, sequence, number, at, stage, status, elapsed_ms"
_NO_ATTEMPT = (None,) * 6
_UNEXPECTED = "the log is not as expected"

_CREATE = f"""
CREATE TEMP VIEW appended ({_APPENDED}) AS SELECT {", ".join(["NULL"] * 13)};

CREATE TEMP TRIGGER append INSTEAD OF INSERT ON appended BEGIN
UPDATE streams SET last_sequence = NEW.sequence
WHERE sid = NEW.sid AND writer_fence = NEW.fence AND last_sequence = NEW.sequence - 1 AND closed_at IS NULL;
SELECT RAISE(ABORT, '{_UNEXPECTED}') WHERE changes() = 0;
UPDATE streams SET closed_at = NEW.now WHERE NEW.closes AND sid = NEW.sid;
INSERT INTO events (sid, sequence, id, type, delivery, utterance, revision, emitted_at, expires_at, closes, body)
VALUES (NEW.sid, NEW.sequence, NEW.id, NEW.type, NEW.delivery, NEW.utterance, NEW.revision, NEW.emitted_at,
NEW.expires_at, NEW.closes, NEW.body);
UPDATE lanes SET next_at = NEW.now WHERE sid = NEW.sid AND next_at IS NULL;
END;

CREATE TEMP VIEW settled ({_SETTLED}) AS SELECT {", ".join(["NULL"] * 12)};

CREATE TEMP TRIGGER settle INSTEAD OF INSERT ON settled BEGIN
UPDATE lanes SET cursor = NEW.cursor, last_sent = NEW.last_sent, attempts = NEW.attempts, settled_at = NEW.now
WHERE lane = NEW.lane AND fence = NEW.fence AND owner IS NOT NULL;
SELECT RAISE(ABORT, '{_UNEXPECTED}') WHERE changes() = 0;
INSERT INTO attempts (lane, sequence, number, at, stage, status, elapsed_ms)
SELECT NEW.lane, NEW.sequence, NEW.number, NEW.at, NEW.stage, NEW.status, NEW.elapsed_ms WHERE NEW.number IS NOT NULL;
END;
"""


def parameters(rows: int, columns: int) -> str:
    """This many rows of parameters, as VALUES takes them."""
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)


@cache
def _insert(view: str, rows: int, columns: int) -> str:
    return f"INSERT INTO {view} VALUES {parameters(rows, columns)}"


def create(connection: sa.Connection) -> None:
    """Create the views on this connection, which must be in no transaction."""
    execute_script(connection, _CREATE)


def append(connection: sa.Connection, appends: Sequence[Append], now: int) -> bool:
    """See :meth:`relay.outbox.database.Database.append`."""
    rows = [row for one in appends for row in _rows(one, now)]
    chunks = (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
    return all(_as_expected(connection, "appended", chunk) for chunk in chunks)


def settle(connection: sa.Connection, settlements: Sequence[Settlement], now: int) -> bool:
    """See :meth:`relay.outbox.database.Database.settle`."""
    return _as_expected(connection, "settled", [row for one in settlements for row in _tries(one, now)])


def _rows(append: Append, now: int) -> Iterator[tuple[object, ...]]:
    for one in append.records:
        yield (
            now,
            append.stream,
            append.fence,
            one.sequence,
            one.id,
            one.type,
            one.delivery.value,
            one.utterance,
            one.revision,
            one.emitted_at,
            one.expires_at,
            one.closes,
            one.body,
        )


def _tries(settlement: Settlement, now: int) -> Iterator[tuple[object, ...]]:
    lane = now, settlement.lane, settlement.fence, settlement.cursor, settlement.last_sent, settlement.attempts
    for one in settlement.tries:
        yield (*lane, one.sequence, one.number, one.at, one.stage, one.status, one.elapsed_ms)
    if not settlement.tries:
        yield lane + _NO_ATTEMPT


def _as_expected(connection: sa.Connection, view: str, rows: Sequence[tuple[object, ...]]) -> bool:
    if not rows:
        return True
    statement = _insert(view, len(rows), len(rows[0]))
    try:
        execute(connection, statement, tuple(chain.from_iterable(rows)))
    except sa.exc.IntegrityError as error:
        if str(error.orig) == _UNEXPECTED:
            return False
        raise
    return True


# SQLite's driver, bypassing SQLAlchemy, which would begin a transaction around each statement: that takes longer than a
# short one.


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
