"""Queries about deliveries, and about attempts. Each runs on the caller's connection.

A delivery has no row. The state of an event for an endpoint follows from the lane's cursor, from the parked and dead
events, and from the attempts.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from relay.outbox.operator.event_queries import find_event
from relay.outbox.operator.views import (
    UNDELIVERED,
    AttemptCount,
    AttemptView,
    DeliveryState,
    DeliveryView,
    EventDeliveries,
)
from relay.outbox.schema import answers, attempts, dead_letters, events, lanes, parked, streams

_CLOCK_SET_BACK_MS = 3_600_000
"""How far attempts may be out of time order, if the clock was set back in between."""

_SEARCHED = 300_000
"""Attempts that are searched for those of an utterance."""

_OK: sa.ColumnElement[str] = sa.literal_column("'ok'")
"""A literal, so that the database sees that the partial index covers the failed attempts."""
_NOTHING = sa.null()


def event_deliveries(
    connection: sa.Connection, event_id: str, *, endpoint: str | None, now: int
) -> EventDeliveries | None:
    """The state of an event for one endpoint, or for all with a lane; None if the log does not have it."""
    found = find_event(connection, event_id)
    if found is None:
        return None
    sid, event = found
    this = (lanes.c.sid == sid) & (events.c.sequence == event.sequence)
    if endpoint is not None:
        this &= lanes.c.endpoint == endpoint
    standing: dict[str, DeliveryView] = {}
    for state in (DeliveryState.SETTLED, *UNDELIVERED):  # the first is true of each, unless one of the others is
        standing |= {
            row.endpoint: delivery_view(state, row) for row in connection.execute(query_of(state, now).where(this))
        }
    tried = [attempt_view(row) for row in connection.execute(tries().where(this, attempts.c.stage != _OK))]
    before = first_attempt(connection, event.emitted_at)
    for name in [each.endpoint for each in standing.values() if each.state is DeliveryState.SETTLED]:
        taken = tries().where(this, lanes.c.endpoint == name, attempts.c.stage == _OK).order_by(attempts.c.n).limit(1)
        # The earlier ones are searched in case the clock was set back further, and for events that were never
        # delivered.
        ok = connection.execute(taken.where(attempts.c.n > before)).first()
        ok = ok or connection.execute(taken.where(attempts.c.n <= before)).first()
        if ok is not None:
            tried.append(attempt_view(ok))
            delivered = query_of(DeliveryState.DELIVERED, now).where(attempts.c.n == ok.n)
            standing[name] = delivery_view(DeliveryState.DELIVERED, connection.execute(delivered).one())
    return EventDeliveries(
        event,
        tuple(standing[name] for name in sorted(standing)),
        tuple(sorted(tried, key=lambda attempt: attempt.n)),
    )


def stream_deliveries(
    connection: sa.Connection, sid: int, sequences: tuple[int, int], *, endpoint: str | None, since: int, now: int
) -> tuple[list[DeliveryView], list[AttemptView]]:
    """The states of a part of a stream, first and last included, and its attempts, in order.

    ``since``: when its first event was appended. Only so many attempts from then on are searched for successful ones.
    """
    this = (lanes.c.sid == sid) & events.c.sequence.between(*sequences)
    if endpoint is not None:
        this &= lanes.c.endpoint == endpoint
    begin = first_attempt(connection, since)
    failed = tries().where(this, attempts.c.stage != _OK)
    recent = attempts.c.n.between(begin + 1, begin + _SEARCHED)
    ok = tries().where(this, recent, attempts.c.stage == _OK)
    tried = [attempt_view(row) for query in (failed, ok) for row in connection.execute(query)]
    found: dict[tuple[str, str], DeliveryView] = {}
    for state in (DeliveryState.SETTLED, *UNDELIVERED):
        views = (delivery_view(state, row) for row in connection.execute(query_of(state, now).where(this)))
        found |= {(view.event_id, view.endpoint): view for view in views}
    for each in tried:
        view = found.get((each.event_id, each.endpoint))
        if each.stage == "ok" and view is not None and view.state is DeliveryState.SETTLED:
            done = replace(view, state=DeliveryState.DELIVERED, at=each.at, attempts=each.number)
            found[each.event_id, each.endpoint] = done
    order = sorted(found.values(), key=lambda view: (view.endpoint, view.sequence))
    return order, sorted(tried, key=lambda attempt: attempt.n)


def attempts_behind(connection: sa.Connection, n: int, endpoint: str | None, limit: int) -> list[AttemptView]:
    """The recorded attempts after number ``n``, in order."""
    mine = sa.true() if endpoint is None else lanes.c.endpoint == endpoint
    behind = tries().where(mine, attempts.c.n > n).order_by(attempts.c.n).limit(limit)
    return [attempt_view(row) for row in connection.execute(behind)]


def newest_attempt(connection: sa.Connection) -> int:
    """The number of the newest attempt, 0 if none."""
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(attempts.c.n), 0))).scalar_one())


def first_attempt(connection: sa.Connection, at: int) -> int:
    """A number below those of all attempts made at ``at`` or later, found by binary search.

    Attempts are numbered in the order of recording, which is the order of their times unless a clock was set. The times
    have no index: nearly all attempts succeed, and each would pay for it.
    """
    low, high = 0, newest_attempt(connection)
    while low < high:
        middle = (low + high + 1) // 2
        nearest = sa.select(attempts.c.at).where(attempts.c.n >= middle).order_by(attempts.c.n).limit(1)
        if connection.execute(nearest).scalar_one() >= at - _CLOCK_SET_BACK_MS:
            high = middle - 1
        else:
            low = middle
    return low


def query_of(state: DeliveryState, now: int) -> sa.Select[Any]:
    """The events in one state for a lane: lane, at, attempts, next_at and reason, and the event's own columns."""
    is_head = events.c.sequence == lanes.c.cursor + 1
    match state:
        case DeliveryState.RETRYING:
            began = sa.func.coalesce(lanes.c.failing_since, events.c.emitted_at)
            failed = lanes.c.next_at.is_not(None) & (lanes.c.attempts > 0) & is_head
            return _of_events(began, lanes.c.attempts, lanes.c.next_at, _last_failure()).where(failed)
        case DeliveryState.PARKED:
            here = (parked.c.lane == lanes.c.lane) & (parked.c.sequence == events.c.sequence)
            columns = _of_events(parked.c.parked_at, parked.c.attempts, parked.c.next_at, parked.c.reason)
            return columns.join(parked, here)
        case DeliveryState.DEAD:
            here = (dead_letters.c.lane == lanes.c.lane) & (dead_letters.c.sequence == events.c.sequence)
            columns = _of_events(dead_letters.c.at, dead_letters.c.attempts, _NOTHING, dead_letters.c.reason)
            return columns.join(dead_letters, here)
        case DeliveryState.PENDING:
            sendable = sa.func.coalesce(events.c.expires_at > now, sa.true())
            behind = (events.c.sequence > lanes.c.cursor) & ~(is_head & (lanes.c.attempts > 0))
            return _of_events(events.c.emitted_at, sa.literal(0), _NOTHING, _NOTHING).where(behind, sendable)
        case DeliveryState.DELIVERED:
            here = (attempts.c.lane == lanes.c.lane) & (attempts.c.sequence == events.c.sequence)
            columns = _of_events(attempts.c.at, attempts.c.number, _NOTHING, _NOTHING)
            return columns.join(attempts, here).where(attempts.c.stage == _OK)
        case DeliveryState.SETTLED:
            passed = events.c.sequence <= lanes.c.cursor
            return _of_events(lanes.c.settled_at, sa.literal(0), _NOTHING, _NOTHING).where(passed)


def _of_events(
    at: sa.ColumnElement[Any],
    tried: sa.ColumnElement[Any],
    next_at: sa.ColumnElement[Any],
    reason: sa.ColumnElement[Any],
) -> sa.Select[Any]:
    return (
        sa.select(
            lanes.c.lane,
            lanes.c.endpoint,
            events.c.id,
            events.c.type,
            events.c.sequence,
            streams.c.room,
            streams.c.participant,
            streams.c.id.label("stream_id"),
            at.label("at"),
            tried.label("attempts"),
            next_at.label("next_at"),
            reason.label("reason"),
            _last_failed_at().label("failed_at"),
        )
        .select_from(lanes)
        .join(streams, streams.c.sid == lanes.c.sid)
        .join(events, events.c.sid == lanes.c.sid)
    )


def _last_failure() -> sa.ColumnElement[str]:
    """The failure of a lane's head, from its attempts: ``status 503``, ``connect``."""
    what = sa.case(
        (attempts.c.status.is_(None), attempts.c.stage),
        else_=attempts.c.stage + " " + sa.cast(attempts.c.status, sa.Text),
    )
    of_head = (attempts.c.lane == lanes.c.lane) & (attempts.c.sequence == lanes.c.cursor + 1)
    newest = sa.select(what).where(of_head, attempts.c.stage != _OK).order_by(attempts.c.n.desc()).limit(1)
    return newest.correlate(lanes).scalar_subquery()


def _last_failed_at() -> sa.ColumnElement[int]:
    of_event = (attempts.c.lane == lanes.c.lane) & (attempts.c.sequence == events.c.sequence)
    newest = sa.select(attempts.c.at).where(of_event, attempts.c.stage != _OK).order_by(attempts.c.n.desc()).limit(1)
    return newest.correlate(lanes, events).scalar_subquery()


def delivery_view(state: DeliveryState, row: sa.Row[Any]) -> DeliveryView:
    return DeliveryView(
        endpoint=row.endpoint,
        state=state,
        at=row.at,
        event_id=row.id,
        type=row.type,
        room=row.room,
        participant=row.participant,
        stream_id=row.stream_id,
        sequence=row.sequence,
        attempts=row.attempts,
        next_at=row.next_at,
        reason=row.reason,
        failed_at=row.failed_at,
    )


def tries() -> sa.Select[Any]:
    """The attempts, each with its endpoint and event."""
    of_event = (events.c.sid == lanes.c.sid) & (events.c.sequence == attempts.c.sequence)
    key = ("lane", "sequence", "number", "at")
    kept = sa.select(answers.c.text).where(*(answers.c[name] == attempts.c[name] for name in key)).limit(1)
    return (
        sa.select(attempts, lanes.c.endpoint, events.c.id, events.c.type, kept.scalar_subquery().label("answer"))
        .select_from(attempts)
        .join(lanes, lanes.c.lane == attempts.c.lane)
        .join(events, of_event)
    )


def attempt_view(row: sa.Row[Any]) -> AttemptView:
    return AttemptView(
        n=row.n,
        endpoint=row.endpoint,
        event_id=row.id,
        type=row.type,
        number=row.number,
        at=row.at,
        stage=row.stage,
        status=row.status,
        elapsed_ms=row.elapsed_ms,
        answer=row.answer,
    )


def attempts_before(
    connection: sa.Connection, n: int | None, *, endpoint: str | None, ok: bool | None, limit: int, scan: int,
    seen: Callable[[str, str], bool],
) -> tuple[list[AttemptView], int | None]:  # fmt: skip
    """At most ``limit`` attempts before number ``n`` or, without it, the newest; newest first, of at most ``scan``.

    Returns the ``n`` of the next page too. ``ok``: only successful ones, or only the others. ``seen``: by endpoint and
    room, which of them are returned.
    """
    upper = newest_attempt(connection) + 1 if n is None else n
    lower = max(0, upper - scan)
    which: list[sa.ColumnElement[bool]] = [attempts.c.n > lower, attempts.c.n < upper]
    if endpoint is not None:
        which.append(lanes.c.endpoint == endpoint)
    if ok is not None:
        which.append(attempts.c.stage == _OK if ok else attempts.c.stage != _OK)
    of_room = tries().add_columns(streams.c.room).join(streams, streams.c.sid == lanes.c.sid)
    rows = connection.execute(of_room.where(*which).order_by(attempts.c.n.desc()).limit(limit)).all()
    found = [attempt_view(row) for row in rows if seen(row.endpoint, row.room)]
    return found, rows[-1].n if len(rows) == limit else lower or None


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
