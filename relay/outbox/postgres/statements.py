"""The statements of every delivery and append, in PostgreSQL. Each runs in the caller's transaction (READ COMMITTED).

A statement sees what was committed when it began. So the rows are locked first, in the order of their keys, which
prevents most deadlocks, and are compared and changed by later statements, which see what others had committed before
they let go of the rows.

Rows are passed as one array per column: one statement per batch.
"""
# ruff: noqa: S608 - the statements are put together from the names in this file

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from relay.events.envelope import Delivery
from relay.outbox.records import Append, Attempt, Record, Settlement

LOG = 0x73706565636872
"""The advisory lock of the log."""
BESIDE = f"SELECT pg_advisory_xact_lock_shared({LOG})"

# The first statement of a transaction that appends or settles takes the lock of the log, too, which saves a round trip.
# Its view of the log may be older than that lock; but what it returns are the newest versions of the rows, because it
# locks them.
_LOCK_STREAMS = f"""
SELECT sid, writer_fence, last_sequence FROM streams, pg_advisory_xact_lock_shared({LOG})
WHERE sid = ANY(%s::bigint[]) AND closed_at IS NULL ORDER BY sid FOR NO KEY UPDATE OF streams"""
_APPEND = """
WITH appended AS (
    INSERT INTO events
        (sid, sequence, id, type, delivery, utterance, revision, emitted_at, expires_at, closes, body)
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[],
        %s::bigint[], %s::bigint[], %s::boolean[], %s::bytea[])
), grown AS (
    UPDATE streams SET last_sequence = v.last, closed_at = CASE WHEN v.closes THEN %s::bigint END
    FROM unnest(%s::bigint[], %s::bigint[], %s::boolean[]) v (sid, last, closes) WHERE streams.sid = v.sid
)
UPDATE lanes SET next_at = %s WHERE sid = ANY(%s::bigint[]) AND next_at IS NULL"""

_LOCK_LANES = f"""
SELECT lane, fence FROM lanes, pg_advisory_xact_lock_shared({LOG})
WHERE lane = ANY(%s::bigint[]) AND owner IS NOT NULL ORDER BY lane FOR NO KEY UPDATE OF lanes"""
_RECORD_ATTEMPTS = """
INSERT INTO attempts (lane, sequence, number, at, stage, status, elapsed_ms)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::smallint[], %s::float8[])
"""
_SETTLE = f"""
WITH tried AS ({_RECORD_ATTEMPTS})
UPDATE lanes SET cursor = v.cursor, last_sent = v.last_sent, attempts = v.attempts, settled_at = %s
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) v (lane, cursor, last_sent, attempts)
WHERE lanes.lane = v.lane"""

_HELD = "lanes.lane = v.lane AND lanes.fence = v.fence AND lanes.owner IS NOT NULL"
_LET_GO = f"""
UPDATE lanes SET next_at = v.next_at, owner = NULL, failing_since = v.failing_since, failed_at = v.failed_at,
outage = v.outage
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::boolean[])
    v (lane, fence, next_at, failing_since, failed_at, outage)
WHERE {_HELD}"""
_RENEW = f"""
UPDATE lanes SET next_at = %s FROM unnest(%s::bigint[], %s::bigint[]) v (lane, fence) WHERE {_HELD}"""
# An append in progress has seen the lane leased, and does not make it due. Its stream's lock is waited for, so that
# the release sees what it appended; and it waits for this one, so that it sees the lane idle.
_AWAIT_APPENDS = """
SELECT sid FROM streams WHERE sid IN (SELECT sid FROM lanes WHERE lane = ANY(%s::bigint[])) ORDER BY sid FOR SHARE"""
_RELEASE = f"""
UPDATE lanes SET owner = NULL,
next_at = CASE WHEN cursor < (SELECT last_sequence FROM streams WHERE streams.sid = lanes.sid) THEN %s::bigint END
FROM unnest(%s::bigint[], %s::bigint[]) v (lane, fence) WHERE {_HELD}"""

_READ = """
SELECT v.n, e.sequence, e.id, e.type, e.delivery, e.utterance, e.revision, e.emitted_at, e.expires_at, e.body, e.closes
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) WITH ORDINALITY v (sid, after, most, n)
JOIN events e ON e.sid = v.sid AND e.sequence BETWEEN v.after + 1 AND v.after + v.most
ORDER BY v.n, e.sequence"""
_RANGES_PER_READ = 16
"""Limits what one statement gathers: 16 times 64 events of 256 KiB at most."""
_DELIVERY = {one.value: one for one in Delivery}


def append(connection: sa.Connection, appends: Sequence[Append], now: int) -> bool:
    """See :meth:`relay.outbox.database.Database.append`."""
    streams = sorted({one.stream for one in appends})
    ends = {
        row.sid: (row.writer_fence, row.last_sequence) for row in connection.exec_driver_sql(_LOCK_STREAMS, (streams,))
    }
    closed = set()
    for one in appends:
        for record in one.records:
            if ends.get(one.stream) != (one.fence, record.sequence - 1) or one.stream in closed:
                return False
            ends[one.stream] = one.fence, record.sequence
            if record.closes:
                closed.add(one.stream)
    rows = [(one.stream, *_columns(record)) for one in appends for record in one.records]
    if rows:
        last = [ends[stream][1] for stream in streams]
        closes = [stream in closed for stream in streams]
        values = (*_arrays(rows), now, streams, last, closes, now, streams)
        connection.exec_driver_sql(_APPEND, values)
    return True


def settle(connection: sa.Connection, settlements: Sequence[Settlement], now: int) -> bool:
    """See :meth:`relay.outbox.database.Database.settle`."""
    newest = {one.lane: one for one in settlements}
    lanes = sorted(newest)
    held = {(row.lane, row.fence) for row in connection.exec_driver_sql(_LOCK_LANES, (lanes,))}
    if any((one.lane, one.fence) not in held for one in settlements):
        return False
    if newest:
        rows = [(one.lane, one.cursor, one.last_sent, one.attempts) for one in newest.values()]
        tries = _attempts(attempt for one in settlements for attempt in one.tries)
        connection.exec_driver_sql(_SETTLE, (*tries, now, *_arrays(rows)))
    return True


def let_go(connection: sa.Connection, settlements: Sequence[Settlement]) -> None:
    """See :meth:`relay.outbox.database.Database.let_go`."""
    rows = [(s.lane, s.fence, s.next_at, s.failing_since, s.failed_at, s.outage) for s in settlements]
    connection.exec_driver_sql(_LET_GO, tuple(_arrays(rows)))


def record_attempts(connection: sa.Connection, attempts: Sequence[Attempt]) -> None:
    """See :meth:`relay.outbox.database.Database.record_attempts`."""
    connection.exec_driver_sql(_RECORD_ATTEMPTS, tuple(_attempts(attempts)))


def renew(connection: sa.Connection, lanes: Sequence[tuple[int, int]], lease_until: int) -> None:
    """See :meth:`relay.outbox.database.Database.renew`."""
    connection.exec_driver_sql(_RENEW, (lease_until, *_arrays(lanes)))


def release(connection: sa.Connection, lanes: Sequence[tuple[int, int]], now: int) -> None:
    """See :meth:`relay.outbox.database.Database.release`."""
    connection.exec_driver_sql(_AWAIT_APPENDS, ([lane for lane, _ in lanes],))
    connection.exec_driver_sql(_RELEASE, (now, *_arrays(lanes)))


def read(connection: sa.Connection, wants: Sequence[tuple[int, int, int]]) -> list[list[Record]]:
    """See :meth:`relay.outbox.database.Database.read`."""
    found: list[list[Record]] = [[] for _ in wants]
    for start in range(0, len(wants), _RANGES_PER_READ):
        some = wants[start : start + _RANGES_PER_READ]
        for n, *columns in connection.exec_driver_sql(_READ, tuple(_arrays(some))):
            columns[3] = _DELIVERY[columns[3]]
            found[start + n - 1].append(Record(*columns))
    return found


def _columns(record: Record) -> tuple[object, ...]:
    return (
        record.sequence,
        record.id,
        record.type,
        record.delivery.value,
        record.utterance,
        record.revision,
        record.emitted_at,
        record.expires_at,
        record.closes,
        record.body,
    )


def _attempts(attempts: Iterable[Attempt]) -> list[list[Any]]:
    rows = [(a.lane, a.sequence, a.number, a.at, a.stage, a.status, float(a.elapsed_ms)) for a in attempts]
    return _arrays(rows) or [[]] * 7


def _arrays(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
