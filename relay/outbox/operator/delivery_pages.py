"""Lists deliveries, a page at a time. Each query runs on the caller's connection.

A page continues after a position, and never counts what was on the pages before: the last page costs as much as the
first.
"""

from collections.abc import Collection, Generator
from contextlib import closing
from typing import Any, NamedTuple

import sqlalchemy as sa

from relay.outbox.operator.delivery_queries import delivery_view, first_attempt, query_of
from relay.outbox.operator.views import DeliveryState, DeliveryView, Wanted
from relay.outbox.schema import attempts, dead_letters, events, lanes, parked

Key = list[sa.ColumnElement[Any]]


class DeliveryPosition(NamedTuple):
    """The place of a delivery in the list."""

    state: DeliveryState
    key: tuple[int, ...]
    """What its state is ordered by."""


def deliveries(
    connection: sa.Connection,
    states: Collection[DeliveryState],
    *,
    endpoint: str | None,
    since: int,
    limit: int,
    now: int,
    wanted: Wanted,
    after: DeliveryPosition | None = None,
    scan: int | None = None,
) -> tuple[list[DeliveryView], DeliveryPosition | None]:
    """At most ``limit`` deliveries that have been in one of these states since ``since`` or later, and the position
    after which the next page begins; None on the last.

    Retrying ones come first, then parked, dead, pending and delivered ones. Events that will not be sent are not
    pending: expired interims, and purged events. ``scan``: how many are looked at: a page may have fewer than its
    limit, or none, and still be followed by another.
    """
    mine = sa.true() if endpoint is None else lanes.c.endpoint == endpoint
    order = [state for state in DeliveryState if state in states]
    if after is not None:
        order = [state for state in DeliveryState if state in order and _place(state) >= _place(after.state)]
    found: list[DeliveryView] = []
    looked_at = 0
    for state in order:
        key = after.key if after is not None and after.state is state else None
        with closing(_rows(connection, state, mine, since=since, now=now, after=key)) as rows:
            for row, at in rows:
                looked_at += 1
                view = delivery_view(state, row)
                match state:
                    case DeliveryState.PENDING:
                        shown = wanted(view.endpoint, view.room, view.participant, view.type)
                    case DeliveryState.SETTLED:
                        shown = not row.goes_on
                    case _:
                        shown = True
                if shown and view.at >= since:
                    found.append(view)
                if len(found) == limit or looked_at == scan:
                    return found, DeliveryPosition(state, at)
    return found, None


def _place(state: DeliveryState) -> int:
    return list(DeliveryState).index(state)


def _rows(
    connection: sa.Connection,
    state: DeliveryState,
    mine: sa.ColumnElement[bool],
    *,
    since: int,
    now: int,
    after: tuple[int, ...] | None,
) -> Generator[tuple[sa.Row[Any], tuple[int, ...]]]:
    """The deliveries in one state after this key, each with its own."""
    query = query_of(state, now).where(mine)
    if state is not DeliveryState.PENDING:
        if state is DeliveryState.DELIVERED:
            query = query.where(attempts.c.n > first_attempt(connection, since))
        elif state is DeliveryState.SETTLED:  # no condition: each one counts as looked at
            query = query.add_columns(_goes_on().label("goes_on"))
        yield from _ordered(connection, query, *_order(state), after)
        return
    # Lane by lane: together they would have to be sorted, and there may be a million.
    waiting = sa.select(lanes.c.lane).where(mine, lanes.c.next_at.is_not(None)).order_by(lanes.c.lane)
    if after is not None:
        waiting = waiting.where(lanes.c.lane >= after[0])
    for lane in connection.execute(waiting).scalars().all():
        rest = after[1:] if after is not None and after[0] == lane else None
        this = query.where(lanes.c.lane == lane)
        for row, (sequence,) in _ordered(connection, this, [events.c.sequence], False, rest):
            yield row, (lane, sequence)


def _goes_on() -> sa.ColumnElement[bool]:
    """Whether an event behind a lane's cursor is parked or dead. Successful attempts have no index by event, so a
    delivered one is not told from the others here."""
    of_event = (
        (table.c.lane == lanes.c.lane) & (table.c.sequence == events.c.sequence) for table in (parked, dead_letters)
    )
    return sa.or_(*(sa.exists().where(each).correlate(lanes, events) for each in of_event))


def _order(state: DeliveryState) -> tuple[Key, bool]:
    """What a state is ordered by, and whether that descends. No two deliveries have the same."""
    match state:
        case DeliveryState.RETRYING:
            return [lanes.c.next_at, lanes.c.lane], False
        case DeliveryState.PARKED:
            return [parked.c.next_at, parked.c.lane, parked.c.sequence], False
        case DeliveryState.DEAD:
            return [dead_letters.c.at, dead_letters.c.lane, dead_letters.c.sequence], True
        case DeliveryState.DELIVERED:
            return [attempts.c.n], True
        case _:
            return [lanes.c.lane, events.c.sequence], False


def _ordered(
    connection: sa.Connection, query: sa.Select[Any], key: Key, descending: bool, after: tuple[int, ...] | None
) -> Generator[tuple[sa.Row[Any], tuple[int, ...]]]:
    if after is not None:
        place, position = sa.tuple_(*key), sa.tuple_(*after)
        query = query.where(place < position if descending else place > position)
    named = [column.label(f"key_{n}") for n, column in enumerate(key)]
    query = query.add_columns(*named).order_by(*(column.desc() if descending else column for column in key))
    with connection.execute(query.execution_options(stream_results=True)) as rows:
        for row in rows:
            yield row, tuple(row[-len(key) :])


def position_of(text: str) -> DeliveryPosition | None:
    """The position that :func:`text_of` has written; None for any other text."""
    state, *key = text.split(".")
    known = {each.value: each for each in DeliveryState}
    if state not in known or not all(part.isascii() and part.isdecimal() and len(part) < 17 for part in key):
        return None
    position = DeliveryPosition(known[state], tuple(map(int, key)))
    width = 2 if position.state is DeliveryState.PENDING else len(_order(position.state)[0])
    return position if len(key) == width else None


def text_of(position: DeliveryPosition) -> str:
    return ".".join((position.state.value, *map(str, position.key)))
