"""The endpoints in the log: their health, and whether they are disabled.

While an endpoint is disabled its events are kept and its lanes stay in place. Attempts in flight settle as usual; the
dispatcher that holds its lanes releases them.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import sqlalchemy as sa

from relay.clock import Clock, instant
from relay.events.operator import (
    DisabledBecause,
    EndpointDisabled,
    EndpointDisabledData,
    EndpointEnabled,
    EndpointEnabledData,
)
from relay.outbox.database import Database
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.notices import Notice, append
from relay.outbox.log.recovery import hasten, lanes_with_parked, put_back
from relay.outbox.records import EndpointState, Health
from relay.outbox.schema import endpoints, lanes, lanes_of, parked, resends, streams

STEP = 500
"""Maximum lanes or parked events per transaction, so that appends can run in between."""


def states(connection: sa.Connection, names: Collection[str] | None = None) -> dict[str, EndpointState]:
    """Every endpoint that the log knows, by name, or those of these ``names``; still configured or not."""
    columns = [endpoints.c[field.name] for field in fields(EndpointState)]
    if names is None:
        rows = list(connection.execute(sa.select(*columns).order_by(endpoints.c.name)).mappings())
    else:
        wanted = sorted(names)
        some = (wanted[start : start + STEP] for start in range(0, len(wanted), STEP))
        found = (connection.execute(sa.select(*columns).where(endpoints.c.name.in_(chunk))) for chunk in some)
        rows = [row for each in found for row in each.mappings()]
    return {row["name"]: EndpointState(**row) for row in rows}


class Endpoints:
    """Records endpoint health, disables and enables endpoints. The others are notified in the same transaction."""

    def __init__(self, writer: GroupCommit, database: Database, clock: Clock) -> None:
        self._writer, self._database, self._clock = writer, database, clock

    async def note_health(self, health: Sequence[Health]) -> None:
        """Write the health of endpoints; unknown values leave the log's values in place."""
        rows = [
            {
                "endpoint": one.endpoint,
                "since": one.failing_since,
                "succeeded": one.succeeded_at,
                "failed": one.failed_at,
                "error": one.last_error,
                "resting": one.resting_until,
                "rests": one.has_rest_changed,
            }
            for one in sorted(health, key=lambda one: one.endpoint)  # rows are locked in one order by all dispatchers
        ]
        if rows:
            await self._writer.call(lambda connection: connection.execute(_NOTE_HEALTH, rows), beside=True)

    async def introduce(self, endpoint: str) -> None:
        """Register an endpoint that no relay has run with yet, so that it can be disabled before one does.

        It gets no lanes yet: they begin when a relay runs with it.
        """
        await self._writer.call(partial(_introduce, endpoint=endpoint))

    async def disable(self, endpoint: str, because: DisabledBecause) -> bool:
        """Disable the endpoint until it is enabled; False if it is already disabled, or unknown."""
        now = self._clock.now_ms()

        def disable(connection: sa.Connection) -> frozenset[int] | None:
            found = _find(connection, endpoint)
            if found is None or found.disabled_at is not None:
                return None
            _change(connection, endpoint, disabled_at=now, disabled_because=because)
            data = EndpointDisabledData(
                endpoint=endpoint,
                reason=because,
                failing_since=None if found.failing_since is None else instant(found.failing_since),
                last_error=found.last_error,
            )
            return append(connection, self._database, endpoint, [Notice(EndpointDisabled, data)], now)

        return await self._writer.call(disable, grown=_grown) is not None

    async def enable(self, endpoint: str, *, replay: bool) -> int | None:
        """Enable the endpoint: returns how many events it will never get, None if it is not disabled.

        With ``replay`` it gets the events that it has missed, and its waiting retries are due at once. Without, it
        starts from now: its lanes move to the ends of their streams, and its parked events are dropped.

        All of this runs in steps before the endpoint is enabled: if interrupted, repeat the call to complete it.
        """
        if await self._writer.call(partial(_disabled_at, endpoint=endpoint)) is None:
            return None
        skipped = 0
        if replay:
            await self.recover(endpoint, since=0, every=True)
        else:
            skipped = await self._skip_lanes(endpoint)
            skipped += await self._repeat(partial(drop_some, parked, endpoint=endpoint))
            await self._repeat(partial(drop_some, resends, endpoint=endpoint))
        now = self._clock.now_ms()

        def enable(connection: sa.Connection) -> frozenset[int] | None:
            disabled_at = _disabled_at(connection, endpoint)
            if disabled_at is None:  # another process was faster
                return None
            _change(connection, endpoint, disabled_at=None, disabled_because=None, failing_since=None)
            data = EndpointEnabledData(endpoint=endpoint, replay=replay, disabled_at=instant(disabled_at))
            return append(connection, self._database, endpoint, [Notice(EndpointEnabled, data)], now)

        enabled = await self._writer.call(enable, grown=_grown)
        return None if enabled is None else skipped

    async def recover(self, endpoint: str, *, since: int | None, every: bool = False) -> int:
        """Make the waiting retries of an endpoint that has recovered due at once; returns how many events.

        ``since``: everything that failed from then on, whatever was blamed; without it, only what an outage may have
        failed. ``every``: all of it. Runs in steps; if interrupted, repeat the call to complete it.
        """
        now, after, count = self._clock.now_ms(), 0, 0
        while some := await self._writer.call(partial(lanes_with_parked, endpoint=endpoint, after=after)):
            count += await self._writer.call(partial(put_back, which=some, now=now, since=since, due=True))
            after = some[-1]
        for table in (parked, lanes, resends):
            count += await self._repeat(
                partial(hasten, table=table, endpoint=endpoint, now=now, since=since, every=every)
            )
        return count

    async def _repeat(self, step: Callable[[sa.Connection], int]) -> int:
        total = 0
        while count := await self._writer.call(step):
            total += count
        return total

    async def _skip_lanes(self, endpoint: str) -> int:
        skipped = 0
        after: int | None = 0
        while after is not None:
            after, count = await self._writer.call(partial(skip_lanes, endpoint=endpoint, after=after))
            skipped += count
        return skipped


_NOTE_HEALTH = (
    sa.update(endpoints)
    .where(endpoints.c.name == sa.bindparam("endpoint"))
    .values(
        failing_since=sa.bindparam("since"),
        succeeded_at=sa.func.coalesce(sa.bindparam("succeeded"), endpoints.c.succeeded_at),
        failed_at=sa.func.coalesce(sa.bindparam("failed"), endpoints.c.failed_at),
        last_error=sa.func.coalesce(sa.bindparam("error"), endpoints.c.last_error),
        resting_until=sa.case(
            (sa.bindparam("rests", type_=sa.Boolean()), sa.bindparam("resting", type_=sa.BigInteger())),
            else_=endpoints.c.resting_until,
        ),
    )
)


def _introduce(connection: sa.Connection, endpoint: str) -> None:
    there = sa.exists().where(endpoints.c.name == endpoint)
    row = sa.select(sa.literal(endpoint), sa.false()).where(~there)
    connection.execute(sa.insert(endpoints).from_select(["name", "active"], row))


def _grown(grown: frozenset[int] | None) -> frozenset[int]:
    return grown or frozenset()


def _find(connection: sa.Connection, endpoint: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(endpoints).where(endpoints.c.name == endpoint).with_for_update()).first()


def _disabled_at(connection: sa.Connection, endpoint: str) -> int | None:
    found = _find(connection, endpoint)
    return None if found is None else found.disabled_at


def _change(connection: sa.Connection, endpoint: str, **values: object) -> None:
    connection.execute(sa.update(endpoints).where(endpoints.c.name == endpoint).values(**values))


def drop_some(table: sa.Table, connection: sa.Connection, *, endpoint: str) -> int:
    """Delete some of an endpoint's parked events, or resends; returns how many."""
    return connection.execute(sa.delete(table).where(_some(table, table.c.endpoint == endpoint))).rowcount


def _some(table: sa.Table, which: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    key = list(table.primary_key)
    return sa.tuple_(*key).in_(sa.select(*key).where(which).limit(STEP))


def skip_lanes(connection: sa.Connection, *, endpoint: str, after: int) -> tuple[int | None, int]:
    """Move the next lanes to the ends of their streams, held or not.

    Returns the stream after which to continue, None at the end, and how many events were skipped.
    """
    last_sequence = sa.select(streams.c.last_sequence).where(streams.c.sid == lanes.c.sid).scalar_subquery()
    some = connection.execute(
        sa.select(lanes.c.lane, lanes.c.sid, lanes.c.cursor, streams.c.last_sequence)
        .join(streams, streams.c.sid == lanes.c.sid)
        .where(lanes_of(endpoint), lanes.c.sid > after)
        .order_by(lanes.c.sid)
        .limit(STEP)
        .with_for_update()
    ).all()
    behind = [row.lane for row in some if row.cursor < row.last_sequence]
    if behind:
        skipped = sa.update(lanes).where(lanes.c.lane.in_(behind))
        to_the_end = {"cursor": last_sequence, "last_sent": last_sequence, "attempts": 0}
        connection.execute(skipped.values(**to_the_end, owner=None, fence=lanes.c.fence + 1, next_at=None))
    count = sum(row.last_sequence - row.cursor for row in some)
    return (some[-1].sid if len(some) == STEP else None), count
