"""The endpoints that are made over the HTTP API: their options, secrets and tenants."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from relay.clock import Clock
from relay.outbox.log.audience import StreamAudience, audience_of, open_lanes_on_open_streams
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.endpoints import STEP, drop_some, skip_lanes
from relay.outbox.log.reader import Reader
from relay.outbox.records import Stored, StoredApiEndpoint
from relay.outbox.schema import (
    api_endpoint_rooms,
    api_endpoints,
    dead_letters,
    endpoints,
    lanes,
    lanes_of,
    parked,
    resends,
    streams,
)

_SECRETS_KEPT = 2
"""The new secret and the one before: receivers accept both until the rotation is over."""
_SIGNS = "*?["
SIGNS_OF_EACH, LENGTH_OF_EACH = 8, 512
"""Of all patterns of a tenant, as they are stored, for each endpoint that it may have. One without patterns of its own
has four signs, two of them those of the lists."""
FORMER_OF_TENANT = 10
"""How many endpoints of a tenant the log may know, removed ones included, for each that it may have."""
_NOT_REMOVED = api_endpoints.c.removed_at.is_(None)


@dataclass(frozen=True, slots=True)
class NewApiEndpoint:
    """What a request asks for."""

    name: str
    tenant: str | None
    options: str
    """As JSON, in a form that is equal for equal options."""
    audience: StreamAudience
    expires_at: int | None
    """Wall time in epoch milliseconds; None for never."""
    made_by: str = ""
    """The name of the sender's token."""


class ApiEndpoints:
    """Makes, changes, removes and lists them. Every method raises ``OutboxError`` if the log cannot be used."""

    def __init__(self, writer: GroupCommit, reader: Reader, clock: Clock) -> None:
        self._writer, self._reader, self._clock = writer, reader, clock

    async def put(self, new: NewApiEndpoint, secret: str, *, most: int, most_of_tenant: int | None = None) -> Stored:
        """Store an endpoint; ``secret`` is used if it is made, not if it is changed.

        ``most``: how many there may be; ``most_of_tenant``: how many of them its tenant's, without it all.

        A new one gets what is appended from now on. It begins with nothing of a former one of its name.
        """
        former = await self._reader.query(partial(_row, name=new.name))
        if former is not None and former.removed_at is not None and former.tenant == new.tenant:
            await self._clear(new.name)
        limits = (most, most if most_of_tenant is None else most_of_tenant)
        return await self._writer.call(partial(_put, new=new, secret=secret, limits=limits, now=self._clock.now_ms()))

    async def rotate(self, name: str, secret: str) -> bool:
        """Sign with this secret, and with the one before until the next rotation; False if there is no endpoint."""
        return await self._writer.call(partial(_rotate, name=name, secret=secret))

    async def remove(self, name: str) -> bool:
        """Send it nothing any more, and drop what it has not received; False if there is no such endpoint."""
        removed = await self._writer.call(partial(_remove, name=name, now=self._clock.now_ms()))
        if removed:
            await self._clear(name)
        return removed

    async def remove_expired(self) -> list[str]:
        """Remove what has expired, and forget removed ones that the log has no lane of any more; returns the expired
        ones' names."""
        now = self._clock.now_ms()
        expired = sa.select(api_endpoints.c.name).where(api_endpoints.c.expires_at <= now, _NOT_REMOVED)
        names = await self._reader.query(lambda connection: list(connection.execute(expired).scalars()))
        for name in names:
            await self.remove(name)
        if await self._reader.query(_forgettable):
            await self._writer.call(_forget)
        return names

    async def get(self, name: str) -> StoredApiEndpoint | None:
        """The endpoint; None if it was never made, or is removed."""
        found = await self._reader.query(partial(_read, which=api_endpoints.c.name == name))
        return found[0] if found and not found[0].removed else None

    async def every(self) -> list[StoredApiEndpoint]:
        """All that were not removed, by name."""
        return await self._reader.query(partial(_read, which=_NOT_REMOVED))

    async def changes(self, after: int) -> list[StoredApiEndpoint]:
        """What was made, changed or removed after this change, in order."""
        return await self._reader.query(
            partial(_read, which=api_endpoints.c.change > after, order=api_endpoints.c.change)
        )

    async def confine(self, rooms: Mapping[str, Sequence[str]]) -> None:
        """Confine each tenant's endpoints to these rooms, given as globs; others stay as they are."""
        if rooms and any(each.tenant in rooms for each in await self.every()):
            await self._writer.call(partial(_confine, rooms=rooms, now=self._clock.now_ms()))

    async def _clear(self, name: str) -> None:
        """Drop what waits for an endpoint that is not sent to: its lanes move to the ends of their streams."""
        after: int | None = 0
        while after is not None:
            after, _ = await self._writer.call(partial(skip_lanes, endpoint=name, after=after))
        for table in (parked, resends):
            while await self._writer.call(partial(drop_some, table, endpoint=name)):
                pass
        while await self._writer.call(partial(_drop_dead, endpoint=name)):
            pass


def _row(connection: sa.Connection, name: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(api_endpoints).where(api_endpoints.c.name == name)).first()


def _read(
    connection: sa.Connection, which: sa.ColumnElement[bool], order: sa.ColumnElement[Any] = api_endpoints.c.name
) -> list[StoredApiEndpoint]:
    found = (
        sa.select(api_endpoints, endpoints.c.by_api)
        .outerjoin(endpoints, endpoints.c.name == api_endpoints.c.name)
        .where(which)
        .order_by(order)
    )
    return [
        StoredApiEndpoint(
            name=row.name,
            tenant=row.tenant,
            options=row.options,
            secrets=tuple(json.loads(row.secrets)),
            within=tuple(json.loads(row.within)),
            change=row.change,
            made_at=row.made_at,
            expires_at=row.expires_at,
            removed=row.removed_at is not None,
            made_by=row.made_by,
        )
        for row in connection.execute(found)
    ]


def _put(connection: sa.Connection, *, new: NewApiEndpoint, secret: str, limits: tuple[int, int], now: int) -> Stored:
    most, most_of_tenant = limits
    known = _row(connection, new.name)
    state = connection.execute(sa.select(endpoints).where(endpoints.c.name == new.name)).first()
    if state is not None and state.active and not state.by_api:
        return Stored.CONFIGURED
    if known is not None and known.removed_at is None:
        return _changed(connection, known, new, most_of_tenant, now)
    has_record = sa.select(sa.exists().where(lanes_of(new.name)))
    # the configuration may have had the name since
    is_own = known is not None and known.tenant == new.tenant and (new.tenant is None or (state and state.by_api))
    if state is not None and not is_own and connection.execute(has_record).scalar_one():
        return Stored.FORMER
    count = sa.select(sa.func.count()).select_from(api_endpoints).where(_NOT_REMOVED)
    if connection.execute(count).scalar_one() >= most:
        return Stored.FULL
    of_tenant = api_endpoints.c.tenant == new.tenant
    if new.tenant is not None and connection.execute(count.where(of_tenant)).scalar_one() >= most_of_tenant:
        return Stored.TENANT_FULL
    every = sa.select(sa.func.count()).select_from(api_endpoints).where(of_tenant)
    if new.tenant is not None and connection.execute(every).scalar_one() >= FORMER_OF_TENANT * most_of_tenant:
        return Stored.FORMER_FULL
    if _asks_too_much(connection, new, most_of_tenant):
        return Stored.PATTERNS_FULL
    values = _values(connection, new)  # before the former row, and its change, are gone
    connection.execute(sa.delete(api_endpoints).where(api_endpoints.c.name == new.name))
    made = sa.insert(api_endpoints).values(name=new.name, tenant=new.tenant, secrets=json.dumps([secret]))
    connection.execute(made.values(values | {"made_at": now, "made_by": new.made_by}))
    connection.execute(sa.delete(endpoints).where(endpoints.c.name == new.name))
    connection.execute(sa.insert(endpoints).values(name=new.name, active=True, by_api=True))
    _to_the_end(connection, new.name)
    _admit(connection, new.name, new.audience, now)
    return Stored.MADE


def _asks_too_much(connection: sa.Connection, new: NewApiEndpoint, most_of_tenant: int) -> bool:
    """Whether the tenant's patterns would be too many or too long: all are compared with a room in the transaction that
    opens a stream in it, and nothing is appended meanwhile."""
    if new.tenant is None:
        return False
    column = api_endpoints.c.audience
    bare: sa.ColumnElement[Any] = column
    for sign in _SIGNS:
        bare = sa.func.replace(bare, sign, "")
    others = (api_endpoints.c.tenant == new.tenant) & _NOT_REMOVED & (api_endpoints.c.name != new.name)
    counts = [sa.func.sum(sa.func.length(column)), sa.func.sum(sa.func.length(bare))]
    found = connection.execute(sa.select(*counts).where(others)).one()
    whole, rest = found[0] or 0, found[1] or 0
    written = new.audience.written()
    length, signs = whole + len(written), whole - rest + sum(map(written.count, _SIGNS))
    return bool(length > LENGTH_OF_EACH * most_of_tenant or signs > SIGNS_OF_EACH * most_of_tenant)


def _changed(
    connection: sa.Connection, known: sa.Row[Any], new: NewApiEndpoint, most_of_tenant: int, now: int
) -> Stored:
    if known.tenant != new.tenant:
        return Stored.TAKEN
    within = json.dumps(list(new.audience.within))
    if (known.options, known.within, known.expires_at) == (new.options, within, new.expires_at):
        return Stored.UNCHANGED
    if _asks_too_much(connection, new, most_of_tenant):
        return Stored.PATTERNS_FULL
    change = sa.update(api_endpoints).where(api_endpoints.c.name == new.name)
    connection.execute(change.values(_values(connection, new)))
    _admit(connection, new.name, new.audience, now)
    return Stored.CHANGED


def _values(connection: sa.Connection, new: NewApiEndpoint) -> dict[str, Any]:
    return {
        "options": new.options,
        "audience": new.audience.written(),
        "within": json.dumps(list(new.audience.within)),
        "expires_at": new.expires_at,
        "change": _next_change(connection),
    }


def _admit(connection: sa.Connection, name: str, audience: StreamAudience, now: int) -> None:
    """Have streams find the endpoint: those that are open, and those to come."""
    connection.execute(sa.delete(api_endpoint_rooms).where(api_endpoint_rooms.c.endpoint == name))
    if found := [{"prefix": each, "endpoint": name} for each in sorted(audience.prefixes())]:
        connection.execute(sa.insert(api_endpoint_rooms), found)
    open_lanes_on_open_streams(connection, name, audience, now)


def _to_the_end(connection: sa.Connection, name: str) -> None:
    """Move former lanes on open streams to the ends of these: they may have grown since they were skipped."""
    end = sa.select(streams.c.last_sequence).where(streams.c.sid == lanes.c.sid).scalar_subquery()
    is_open = sa.exists().where(streams.c.sid == lanes.c.sid, streams.c.closed_at.is_(None))
    behind = sa.update(lanes).where(lanes_of(name), lanes.c.cursor < end, is_open)
    connection.execute(
        behind.values(cursor=end, last_sent=end, attempts=0, owner=None, fence=lanes.c.fence + 1, next_at=None)
    )


def _rotate(connection: sa.Connection, *, name: str, secret: str) -> bool:
    known = _row(connection, name)
    if known is None or known.removed_at is not None:
        return False
    secrets = [secret, *json.loads(known.secrets)][:_SECRETS_KEPT]
    change = sa.update(api_endpoints).where(api_endpoints.c.name == name)
    connection.execute(change.values(secrets=json.dumps(secrets), change=_next_change(connection)))
    return True


def _remove(connection: sa.Connection, *, name: str, now: int) -> bool:
    removed = (
        sa.update(api_endpoints)
        .where(api_endpoints.c.name == name, _NOT_REMOVED)
        .values(options="", secrets="[]", removed_at=now, expires_at=None, change=_next_change(connection))
    )
    if not connection.execute(removed).rowcount:
        return False
    connection.execute(sa.delete(api_endpoint_rooms).where(api_endpoint_rooms.c.endpoint == name))
    inactive = sa.update(endpoints).where(endpoints.c.name == name, endpoints.c.by_api)
    connection.execute(inactive.values(active=False, disabled_at=None, disabled_because=None))
    # The stream of the events about it: nothing is reported of it any more.
    about = sa.update(streams).where(streams.c.about == name, streams.c.closed_at.is_(None))
    if _is_by_api(connection, name):
        connection.execute(about.values(closed_at=now))
    return True


def _is_by_api(connection: sa.Connection, name: str) -> bool:
    return bool(connection.execute(sa.select(sa.exists().where(endpoints.c.name == name, endpoints.c.by_api))).scalar())


def _confine(connection: sa.Connection, *, rooms: Mapping[str, Sequence[str]], now: int) -> None:
    for row in connection.execute(sa.select(api_endpoints).where(_NOT_REMOVED)).all():
        allowed = rooms.get(row.tenant)
        if allowed is None or (within := json.dumps(list(allowed))) == row.within:
            continue
        change = sa.update(api_endpoints).where(api_endpoints.c.name == row.name)
        connection.execute(change.values(within=within, change=_next_change(connection)))
        _admit(connection, row.name, audience_of(row.audience, within), now)


def _next_change(connection: sa.Connection) -> int:
    newest = sa.select(sa.func.coalesce(sa.func.max(api_endpoints.c.change), 0))
    return int(connection.execute(newest).scalar_one()) + 1


_GONE = sa.and_(api_endpoints.c.removed_at.is_not(None), ~sa.exists().where(lanes_of(api_endpoints.c.name)))
# The newest change stays: the next one must have a higher number. Nothing else stays of that endpoint.
_NOT_NEWEST = api_endpoints.c.change < sa.select(sa.func.max(api_endpoints.c.change)).scalar_subquery()
_REMAINS = sa.and_(endpoints.c.by_api, ~endpoints.c.active)
_FORGETTABLE = sa.and_(
    _GONE, sa.or_(_NOT_NEWEST, sa.exists().where(endpoints.c.name == api_endpoints.c.name, _REMAINS))
)


def _forgettable(connection: sa.Connection) -> bool:
    return bool(connection.execute(sa.select(sa.exists().where(_FORGETTABLE))).scalar_one())


def _forget(connection: sa.Connection) -> None:
    names = list(connection.execute(sa.select(api_endpoints.c.name).where(_FORGETTABLE).limit(STEP)).scalars())
    connection.execute(sa.delete(endpoints).where(endpoints.c.name.in_(names), _REMAINS))
    connection.execute(sa.delete(api_endpoints).where(api_endpoints.c.name.in_(names), _NOT_NEWEST))


def _drop_dead(connection: sa.Connection, *, endpoint: str) -> int:
    key = sa.tuple_(dead_letters.c.lane, dead_letters.c.sequence)
    some = (
        sa.select(dead_letters.c.lane, dead_letters.c.sequence)
        .join(lanes, lanes.c.lane == dead_letters.c.lane)
        .where(lanes_of(endpoint))
        .limit(STEP)
    )
    return connection.execute(sa.delete(dead_letters).where(key.in_(some))).rowcount
