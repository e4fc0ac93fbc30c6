"""Queries about attempts of all events. Each runs on the caller's connection, and looks at a bounded number."""

import sqlalchemy as sa

from relay.outbox.operator.delivery_queries import attempt_view, first_attempt, newest_attempt, tries
from relay.outbox.operator.views import AttemptCount, AttemptView
from relay.outbox.schema import attempts, lanes

_OK: sa.ColumnElement[str] = sa.literal_column("'ok'")
"""A literal, so that the database sees that the partial index covers the failed attempts."""


def attempts_before(
    connection: sa.Connection, n: int | None, *, endpoint: str | None, ok: bool | None, limit: int, scan: int
) -> tuple[list[AttemptView], int | None]:
    """At most ``limit`` attempts before number ``n`` or, without it, the newest; newest first, of at most ``scan``.

    Returns the ``n`` of the next page too. ``ok``: only successful ones, or only the others.
    """
    upper = newest_attempt(connection) + 1 if n is None else n
    lower = max(0, upper - scan)
    which: list[sa.ColumnElement[bool]] = [attempts.c.n > lower, attempts.c.n < upper]
    if endpoint is not None:
        which.append(lanes.c.endpoint == endpoint)
    if ok is not None:
        which.append(attempts.c.stage == _OK if ok else attempts.c.stage != _OK)
    query = tries().where(*which).order_by(attempts.c.n.desc()).limit(limit)
    found = [attempt_view(row) for row in connection.execute(query)]
    if len(found) == limit:
        return found, found[-1].n
    return found, lower or None


def attempt_counts(
    connection: sa.Connection, *, endpoint: str | None, since: int, step: int, scan: int
) -> tuple[list[AttemptCount], int]:
    """How many attempts were made since, by endpoint and by period of ``step`` milliseconds: of the newest ``scan``.

    Returns the time from which on they are all counted, too.
    """
    newest, begin = newest_attempt(connection), first_attempt(connection, since)
    first = max(begin, newest - scan)
    period = (attempts.c.at - attempts.c.at % step).label("period")
    ok = sa.func.sum(sa.case((attempts.c.stage == _OK, 1), else_=0)).label("ok")
    which = [attempts.c.n > first, attempts.c.at >= since]
    if endpoint is not None:
        which.append(lanes.c.endpoint == endpoint)
    query = (
        sa.select(lanes.c.endpoint, period, sa.func.count().label("all"), ok, sa.func.max(attempts.c.elapsed_ms))
        .join(lanes, lanes.c.lane == attempts.c.lane)
        .where(*which)
        .group_by(lanes.c.endpoint, period)
        .order_by(lanes.c.endpoint, period)
    )
    counts = [AttemptCount(name, at, good, every - good, most) for name, at, every, good, most in
              connection.execute(query)]  # fmt: skip
    if first == begin:
        return counts, since
    oldest = connection.execute(sa.select(attempts.c.at).where(attempts.c.n > first).order_by(attempts.c.n).limit(1))
    return counts, max(since, oldest.scalar_one())
