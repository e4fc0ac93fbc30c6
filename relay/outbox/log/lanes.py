"""The lanes as a dispatcher leases them: :class:`relay.dispatch.store.LaneStore` over the log's database."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import sqlalchemy as sa

from relay.clock import Clock
from relay.errors import Fenced, OutboxError
from relay.events.operator import DisabledBecause
from relay.outbox import schema
from relay.outbox.database import Database
from relay.outbox.log import endpoints, parked, resends
from relay.outbox.log.audience import due_endpoints, lanes_by_stream
from relay.outbox.log.clock_change import shift
from relay.outbox.log.commit import GroupCommit, keep_answers
from relay.outbox.log.processes import endpoints_of_others, note_endpoints
from relay.outbox.log.reader import Reader
from relay.outbox.log.streams import open_lanes
from relay.outbox.records import (
    EVERY_STREAM,
    EndpointState,
    Health,
    Lane,
    LanesWanted,
    ParkedEvent,
    ParkedSettlement,
    Record,
    Settlement,
    StreamShare,
)

_ALL: Mapping[str, StreamShare] = MappingProxyType({})
_MOST_CLAIMED = 256
"""Lanes per transaction. More are claimed by more transactions, so that appends can run in between."""
_IDS_PER_QUERY = 500


class Lanes:
    """The lanes as ``owner`` sees them: the dispatcher's name, the same after a restart.

    The protocol says what each method does. Here is only what the log adds to that.
    """

    def __init__(
        self,
        owner: str,
        database: Database,
        writer: GroupCommit,
        reader: Reader,
        clock: Clock,
        *,
        writer_lease_ms: int,
        sole: bool,
    ) -> None:
        """``sole``: no other dispatcher uses the log."""
        self._sole = sole
        self._owner, self._database, self._writer, self._reader, self._clock = owner, database, writer, reader, clock
        self._endpoints = endpoints.Endpoints(writer, database, clock)
        self._writer_lease_ms = writer_lease_ms
        self._lease_ms: int | None = None

    async def sync_endpoints(self, names: Sequence[str], *, only_add: bool = False) -> None:
        """Make these the configuration's endpoints. A new one gets a lane, starting now, for every open stream.

        Those of other dispatchers that run stay configured: their files may differ for a while, and each sends to its
        own. ``only_add``: so do all that are not named, because this process sends nothing.

        The lanes of an endpoint that is no longer configured stay in place, and continue there when it is configured
        again. An endpoint that was made over the API gives way while the configuration has its name.
        """
        now = self._clock.now_ms()

        def sync(connection: sa.Connection) -> None:
            every, kept = schema.endpoints, set(names)
            if not only_add and not self._sole:
                note_endpoints(connection, self._owner, names)
                kept |= endpoints_of_others(connection, self._owner)
            named = every.c.name.in_(names)
            known = set(connection.execute(sa.select(every.c.name).where(named)).scalars())
            made = sa.select(schema.api_endpoints.c.name).where(schema.api_endpoints.c.removed_at.is_(None))
            change = sa.update(every)
            connection.execute(change.where(named).values(active=True, by_api=False))
            if not only_add:
                connection.execute(
                    change.where(every.c.name.not_in(kept), every.c.active, ~every.c.by_api).values(active=False)
                )
            connection.execute(change.where(~every.c.active, every.c.name.in_(made)).values(active=True, by_api=True))
            if new := [{"name": name, "active": True} for name in sorted(set(names) - known)]:
                connection.execute(sa.insert(schema.endpoints), new)
            open_lanes(connection, sa.true(), now)

        await self._writer.call(sync)

    async def reclaim(self) -> None:
        """Reclaim at once what this name held before a restart; a settle by the former process is refused.

        Due lanes are due now, even if the wall clock was set back meanwhile.
        """
        now = self._clock.now_ms()

        def free(connection: sa.Connection) -> None:
            for table in (schema.lanes, schema.parked, schema.resends):
                mine = sa.update(table).where(table.c.owner == self._owner)
                connection.execute(mine.values(owner=None, next_at=now))
            self._follow(connection, 0, now)

        await self._writer.call(free)

    async def free(self, owners: Collection[str]) -> None:
        now = self._clock.now_ms()

        def free(connection: sa.Connection) -> None:
            for table in (schema.lanes, schema.parked, schema.resends):
                # idle lanes, by far the most, are left out by the index on the schedule
                held = table.c.owner.in_(owners) & table.c.next_at.is_not(None)
                connection.execute(sa.update(table).where(held).values(owner=None, next_at=now))

        await self._writer.call(free)

    async def claim(
        self, wants: Mapping[str, int], *, lease_ms: int, shares: Mapping[str, StreamShare] = _ALL
    ) -> list[Lane]:
        """Lease up to this many due lanes of each endpoint, longest due first within an endpoint.

        Of an endpoint with a share: lanes of the share's streams, and others, if at all, only once they have been due
        for two seconds, because their dispatcher is busy or dead.
        """
        claimed: list[Lane] = []
        left = {endpoint: most for endpoint, most in wants.items() if most > 0}
        while left:
            # Equal shares: an endpoint with a long queue does not delay the others.
            share = max(1, _MOST_CLAIMED // len(left))
            asked = {endpoint: min(most, share) for endpoint, most in list(left.items())[:_MOST_CLAIMED]}
            try:
                got = await self._claim(asked, lease_ms, shares)
            except OutboxError:
                if not claimed:
                    raise
                return claimed  # they are leased, so they must be returned; the next claim meets the error again
            claimed += got
            for endpoint, most in asked.items():
                count = sum(lane.endpoint == endpoint for lane in got)
                left[endpoint] -= count
                if count < most or not left[endpoint]:
                    del left[endpoint]
        return claimed

    def _claim(
        self, wants: Mapping[str, int], lease_ms: int, shares: Mapping[str, StreamShare]
    ) -> asyncio.Future[list[Lane]]:
        now = self._clock.now_ms()
        self._lease_ms, lease_until = lease_ms, now + lease_ms

        wanted = [LanesWanted(each, most, shares.get(each, EVERY_STREAM)) for each, most in wants.items()]
        claim = partial(self._database.claim, wants=wanted, owner=self._owner, now=now, lease_until=lease_until)
        return self._writer.call(claim, beside=True, at_once=self._database.claims_at_once)

    def read(self, stream: int, after: int, limit: int) -> asyncio.Future[list[Record]]:
        """The stream's events after ``after``, in order, at most ``limit``.

        A long-expired interim may come with an empty body and ``expires_at`` 0.
        """
        return self._reader.read(stream, after, limit)

    def settle(self, settlement: Settlement, *, awaited: bool = True) -> asyncio.Future[None]:
        """Record the result of a lane's head; done at the commit. Raises ``Fenced`` if the lane was lost.

        A settlement that is not awaited is committed with the next one that is, with an append of this process, or
        after 10 ms.
        """
        return self._writer.settle(settlement, awaited=awaited)

    def hasten(self) -> None:
        self._writer.hasten()

    async def renew(self, lanes: Iterable[tuple[int, int]], *, lease_ms: int) -> frozenset[int]:
        """Renew the leases of (lane, fence) pairs; returns the lanes that were not lost."""
        pairs, until = list(lanes), self._clock.now_ms() + lease_ms
        return await self._writer.call(lambda connection: self._database.renew(connection, pairs, until), beside=True)

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        pairs, now = list(lanes), self._clock.now_ms()
        if pairs:
            await self._writer.call(lambda connection: self._database.release(connection, pairs, now), beside=True)

    async def claim_parked(
        self, wants: Mapping[str, int], *, lease_ms: int, shares: Mapping[str, StreamShare] = _ALL
    ) -> list[ParkedEvent]:
        """Lease up to this many due parked events of each endpoint, longest due first; then resends.

        ``shares``: as for lanes. An event that is no longer kept is no longer parked either.
        """
        now = self._clock.now_ms()

        def claim(connection: sa.Connection) -> list[ParkedEvent]:
            claimed = parked.claim(connection, self._owner, wants, now, now + lease_ms, shares)
            taken = Counter(one.endpoint for one in claimed)
            left = {endpoint: most - taken[endpoint] for endpoint, most in wants.items() if most > taken[endpoint]}
            return claimed + resends.claim(connection, self._owner, left, now, now + lease_ms, shares)

        return await self._writer.call(claim, beside=True)

    async def settle_parked(self, settlement: ParkedSettlement) -> None:
        now = self._clock.now_ms()
        settle = partial(_settle_parked, database=self._database, settlement=settlement, now=now)
        held, _ = await self._writer.call(settle, grown=lambda outcome: outcome[1])
        if not held:
            raise Fenced("the parked event was claimed by another dispatcher, or is no longer parked")

    async def endpoint_states(self, names: Collection[str] | None = None) -> dict[str, EndpointState]:
        """Every endpoint that the log knows, by name, or those of these ``names``."""
        return await self._reader.query(partial(endpoints.states, names=names))

    async def api_lanes(self, streams: Collection[int]) -> dict[int, list[str]]:
        return await self._reader.query(partial(lanes_by_stream, which=streams))

    async def due_api_endpoints(self) -> tuple[set[str], set[str]]:
        now = self._clock.now_ms()
        return await self._reader.query(
            lambda connection: (
                due_endpoints(connection, schema.lanes, now),
                due_endpoints(connection, schema.parked, now) | due_endpoints(connection, schema.resends, now),
            )
        )

    async def note_health(self, health: Sequence[Health]) -> None:
        """Write the health of endpoints; unknown values leave the log's values in place."""
        await self._endpoints.note_health(health)

    async def disable(self, endpoint: str, because: DisabledBecause) -> bool:
        """Disable the endpoint until it is enabled; False if it is already disabled, or unknown."""
        return await self._endpoints.disable(endpoint, because)

    async def recover(self, endpoint: str, *, since: int | None) -> int:
        """Make the waiting retries of an endpoint that has recovered due at once; returns how many events."""
        return await self._endpoints.recover(endpoint, since=since)

    async def shift(self, by_ms: int, *, beyond: int) -> None:
        """Follow the wall clock, which was set by ``by_ms`` when it read ``beyond``: see :mod:`.clock_change`."""
        await self._writer.call(partial(self._follow, by_ms=by_ms, beyond=beyond))

    def _follow(self, connection: sa.Connection, by_ms: int, beyond: int) -> None:
        shift(
            connection,
            by_ms,
            beyond=beyond,
            now=self._clock.now_ms(),
            lease_ms=self._lease_ms,
            writer_lease_ms=self._writer_lease_ms,
        )

    async def last_sequences(self, streams: Sequence[int]) -> dict[int, int]:
        """The newest sequence of each stream; a stream that is no longer kept is left out."""

        def look(connection: sa.Connection) -> dict[int, int]:
            newest: dict[int, int] = {}
            for start in range(0, len(streams), _IDS_PER_QUERY):
                chunk = streams[start : start + _IDS_PER_QUERY]
                rows = connection.execute(
                    sa.select(schema.streams.c.sid, schema.streams.c.last_sequence).where(
                        schema.streams.c.sid.in_(chunk)
                    )
                )
                newest |= {row.sid: row.last_sequence for row in rows}
            return newest

        return await self._reader.query(look)

    async def unsettled(self) -> dict[str, int]:
        """Per active endpoint, how many events it may still get: after its cursors, or parked; 0 if none."""
        behind = sa.func.sum(schema.streams.c.last_sequence - schema.lanes.c.cursor)
        of_endpoint = schema.parked.c.endpoint == schema.endpoints.c.name
        aside = sa.select(sa.func.count()).select_from(schema.parked).where(of_endpoint).correlate(schema.endpoints)
        every = (
            sa.select(schema.endpoints.c.name, sa.func.coalesce(behind, 0) + aside.scalar_subquery())
            .outerjoin(schema.lanes, schema.lanes.c.endpoint == schema.endpoints.c.name)
            .outerjoin(schema.streams, schema.streams.c.sid == schema.lanes.c.sid)
            .where(schema.endpoints.c.active)
            .group_by(schema.endpoints.c.name)
        )
        return await self._reader.query(lambda connection: {name: int(n) for name, n in connection.execute(every)})


def _settle_parked(
    connection: sa.Connection, database: Database, settlement: ParkedSettlement, now: int
) -> tuple[bool, frozenset[int]]:
    """Record the result: whether the event was still held, and the streams that have grown."""
    if settlement.tries:  # an attempt was made, whichever dispatcher holds the event now
        database.record_attempts(connection, settlement.tries)
    settle = parked.settle if settlement.resend is None else resends.settle
    held = settle(connection, settlement, now)
    if held:
        keep_answers(connection, settlement.tries)
    if not held or settlement.dead is None:
        return held, frozenset()
    return held, parked.bury(connection, database, settlement.lane, settlement.dead, now)
