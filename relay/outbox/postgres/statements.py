"""The statements of every delivery and append, in PostgreSQL: one per batch.

The most frequent ones are functions in the database, which get their rows as JSON: a round trip each, and the driver
encodes no arrays.
"""
# ruff: noqa: S608 - the statements are put together from the names in this file

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from relay.events.envelope import Delivery
from relay.outbox.postgres.direct import Statement, execute
from relay.outbox.postgres.functions import LOG
from relay.outbox.records import OVERDUE_MS, Append, Attempt, Lane, LanesWanted, Record, Settlement, leased

BESIDE = f"SELECT pg_advisory_xact_lock_shared({LOG})"

# Without the casts PostgreSQL would prefer an overload for text, which another role may have added.
_APPEND = Statement(b"append", b"SELECT append_events($1::json, $2::json, $3::bigint)")
_APPEND_ONE = Statement(
    b"append_one",
    b"SELECT append_event($1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::text, $6::text, $7::text, $8::text,"
    b" $9::bigint, $10::bigint, $11::bigint, $12::boolean, $13::bytea)",
)
# A claim waits for no disk: one that a crash loses is fenced off, as after a failover, and its event sent again. Where
# standbys confirm commits, it waits for them: a primary that has lost them sends nothing that its successor sends, too.
_CLAIM = Statement(
    b"claim",
    b"SELECT l.* FROM set_config('synchronous_commit', CASE current_setting('synchronous_standby_names')"
    b" WHEN '' THEN 'off' ELSE current_setting('synchronous_commit') END, true),"
    b" claim_lanes($1::json, $2::text, $3::bigint, $4::bigint, $5::bigint) l",
)
_SETTLE = Statement(b"settle", b"SELECT settle_lanes($1::json, $2::json, $3::bigint)")
_READ = Statement(b"read", b"SELECT * FROM read_events($1::json)")
_RECORD_ATTEMPTS = """
INSERT INTO attempts (lane, sequence, number, at, stage, status, elapsed_ms)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::smallint[], %s::float8[])
"""

_HELD = "lanes.lane = v.lane AND lanes.fence = v.fence AND lanes.owner IS NOT NULL"
_RELEASE_UNTIL = f"""
UPDATE lanes SET next_at = v.next_at, owner = NULL, failing_since = v.failing_since, failed_at = v.failed_at,
outage = v.outage
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::boolean[])
    v (lane, fence, next_at, failing_since, failed_at, outage)
WHERE {_HELD}"""
_RENEW = f"""
UPDATE lanes SET next_at = %s FROM unnest(%s::bigint[], %s::bigint[]) v (lane, fence) WHERE {_HELD}
RETURNING lanes.lane"""
# An append in progress has seen the lane leased, and does not make it due. Its stream's lock is waited for, so that
# the release sees what it appended; and it waits for this one, so that it sees the lane idle.
_AWAIT_APPENDS = """
SELECT sid FROM streams WHERE sid IN (SELECT sid FROM lanes WHERE lane = ANY(%s::bigint[])) ORDER BY sid FOR SHARE"""
_RELEASE = f"""
UPDATE lanes SET owner = NULL,
next_at = CASE WHEN cursor < (SELECT last_sequence FROM streams WHERE streams.sid = lanes.sid) THEN %s::bigint END
FROM unnest(%s::bigint[], %s::bigint[]) v (lane, fence) WHERE {_HELD}"""

_RANGES_PER_READ = 16
"""Limits what one statement gathers: 16 times 64 events of 256 KiB at most."""
# JSON by hand, of numbers and the names of stages: with two rows for each delivery, the encoder would take as long as
# the statement.
_SETTLED = '{"lane":%d,"fence":%d,"cursor":%d,"last_sent":%d,"attempts":%d}'
_TRIED = '{"lane":%d,"sequence":%d,"number":%d,"at":%d,"stage":"%s","status":%s,"elapsed_ms":%r}'
_DELIVERY = {one.value: one for one in Delivery}


def append(connection: sa.Connection, appends: Sequence[Append], now: int) -> bool:
    """See :meth:`relay.outbox.database.Database.append`."""
    if len(appends) == 1 and len(appends[0].records) == 1:
        return _append_one(connection, appends[0].stream, appends[0].fence, appends[0].records[0], now)
    ends: dict[int, dict[str, Any]] = {}
    rows = []
    for one in appends:
        for record in one.records:
            before = record.sequence - 1
            end = ends.setdefault(one.stream, {"sid": one.stream, "fence": one.fence, "before": before, "last": before})
            if end["fence"] != one.fence or end["last"] != before or end.get("closes"):
                return False
            end["last"], end["closes"] = record.sequence, record.closes
            rows.append({"sid": one.stream, **record._asdict(), "body": record.body.decode()})
    return not rows or _done(connection, _APPEND, _json(list(ends.values())), _json(rows), now)


def _append_one(connection: sa.Connection, stream: int, fence: int, record: Record, now: int) -> bool:
    sequence, id_, type_, delivery, utterance, revision, emitted_at, expires_at, body, closes = record
    values = id_, type_, delivery.value, utterance, revision, emitted_at, expires_at, closes, body
    ((done,),) = execute(connection, _APPEND_ONE, (stream, fence, sequence - 1, now, *values))
    return bool(done)


def claim(
    connection: sa.Connection, wants: Sequence[LanesWanted], owner: str, now: int, lease_until: int
) -> list[Lane]:
    """See :meth:`relay.outbox.database.Database.claim`."""
    asked = [
        {
            "endpoint": one.endpoint,
            "most": one.most,
            "parts": one.share.of,
            "remainder": one.share.remainder,
            "own": one.share.only,
        }
        for one in wants
    ]
    rows = execute(connection, _CLAIM, (_json(asked), owner, now, now - OVERDUE_MS, lease_until))
    return [leased(row, lease_until) for row in rows]


def settle(connection: sa.Connection, settlements: Sequence[Settlement], now: int) -> bool:
    """See :meth:`relay.outbox.database.Database.settle`."""
    newest: dict[int, Settlement] = {}
    for one in settlements:
        earlier = newest.get(one.lane)
        if earlier and earlier.fence != one.fence:
            return False
        newest[one.lane] = one
    if not newest:
        return True
    settled = ",".join([_SETTLED % one[:5] for one in newest.values()])
    tries = ",".join([_tried(one) for settlement in settlements for one in settlement.tries])
    return _done(connection, _SETTLE, f"[{settled}]", f"[{tries}]", now)


def release_until(connection: sa.Connection, settlements: Sequence[Settlement]) -> None:
    """See :meth:`relay.outbox.database.Database.release_until`."""
    rows = [(s.lane, s.fence, s.next_at, s.failing_since, s.failed_at, s.outage) for s in settlements]
    connection.exec_driver_sql(_RELEASE_UNTIL, tuple(_arrays(rows)))


def record_attempts(connection: sa.Connection, attempts: Sequence[Attempt]) -> None:
    """See :meth:`relay.outbox.database.Database.record_attempts`."""
    connection.exec_driver_sql(_RECORD_ATTEMPTS, tuple(_attempts(attempts)))


def renew(connection: sa.Connection, lanes: Sequence[tuple[int, int]], lease_until: int) -> frozenset[int]:
    """See :meth:`relay.outbox.database.Database.renew`."""
    return frozenset(connection.exec_driver_sql(_RENEW, (lease_until, *_arrays(lanes))).scalars())


def release(connection: sa.Connection, lanes: Sequence[tuple[int, int]], now: int) -> None:
    """See :meth:`relay.outbox.database.Database.release`."""
    connection.exec_driver_sql(_AWAIT_APPENDS, ([lane for lane, _ in lanes],))
    connection.exec_driver_sql(_RELEASE, (now, *_arrays(lanes)))


def read(connection: sa.Connection, wants: Sequence[tuple[int, int, int]]) -> list[list[Record]]:
    """See :meth:`relay.outbox.database.Database.read`."""
    found: list[list[Record]] = [[] for _ in wants]
    for start in range(0, len(wants), _RANGES_PER_READ):
        some = [
            {"n": n, "sid": sid, "after": after, "upto": after + most}
            for n, (sid, after, most) in enumerate(wants[start : start + _RANGES_PER_READ], start)
        ]
        for n, *columns in execute(connection, _READ, (_json(some),)):
            columns[3] = _DELIVERY[columns[3]]
            found[n].append(Record(*columns))
    return found


def _done(connection: sa.Connection, statement: Statement, these: str, those: str, now: int) -> bool:
    ((done,),) = execute(connection, statement, (these, those, now))
    return bool(done)


def _tried(attempt: Attempt) -> str:
    lane, sequence, number, at, stage, status, elapsed_ms, _ = attempt  # the answer has a table of its own
    return _TRIED % (lane, sequence, number, at, stage, "null" if status is None else status, float(elapsed_ms))


def _json(rows: object) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _attempts(attempts: Iterable[Attempt]) -> list[list[Any]]:
    rows = [(a.lane, a.sequence, a.number, a.at, a.stage, a.status, float(a.elapsed_ms)) for a in attempts]
    return _arrays(rows) or [[]] * 7


def _arrays(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
