"""In-memory lanes with the semantics of the real outbox, for dispatcher tests."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from relay.clock import Clock
from relay.dispatch.clock_jump import Jump
from relay.errors import Fenced, OutboxError
from relay.events.operator import DisabledBecause
from relay.outbox.records import (
    Attempt,
    DeadLetter,
    EndpointState,
    Growth,
    Health,
    Lane,
    ParkedEvent,
    ParkedSettlement,
    Record,
    Settlement,
    StreamShare,
)


@dataclass
class Row:
    """A lane's state in the log."""

    id: int
    endpoint: str
    stream: int
    cursor: int = 0
    last_sent: int = 0
    attempts: int = 0
    next_at: int | None = None
    owner: str | None = None
    fence: int = 0
    failing_since: int | None = None
    failed_at: int | None = None
    outage: bool = True


@dataclass
class Aside:
    """A parked event's state in the log."""

    lane: int
    sequence: int
    endpoint: str
    attempts: int
    reason: str
    previous: int
    next_at: int
    parked_at: int = 0
    failed_at: int | None = None
    outage: bool = True
    owner: str | None = None
    fence: int = 0


@dataclass
class MemoryLog:
    """The state that all dispatchers share."""

    clock: Clock
    events: dict[int, list[Record]] = field(default_factory=dict)
    where: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Stream → (room, participant's identity)."""
    rows: list[Row] = field(default_factory=list)
    tries: list[Attempt] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    parked: list[Aside] = field(default_factory=list)
    endpoints: list[str] = field(default_factory=list)
    states: dict[str, EndpointState] = field(default_factory=dict)
    bells: list[Callable[[Growth], None]] = field(default_factory=list)
    """Called after an append: ``Dispatcher.ring``. The relay has no stream of its own here."""

    def open(self, room: str = "room", participant: str = "alice") -> int:
        """Create a stream; return its number."""
        stream = len(self.events) + 1
        self.events[stream], self.where[stream] = [], (room, participant)
        self.rows += [Row(len(self.rows) + i, name, stream) for i, name in enumerate(self.endpoints, 1)]
        return stream

    def append(self, stream: int, *records: Record, ring: bool = True) -> None:
        """One transaction; sequences must continue where the log ends."""
        for record in records:
            assert record.sequence == len(self.events[stream]) + 1
            self.events[stream].append(record)
        for row in self.rows:
            if row.stream == stream and row.next_at is None:
                row.next_at = self.clock.now_ms()
        if ring:
            self.ring(stream, *records)

    def ring(self, stream: int, *records: Record) -> None:
        """Notify the dispatcher of more events, with these records if there are any."""
        for bell in self.bells:
            bell({stream: records})

    def leasable(self) -> list[Row | Aside]:
        return [*self.rows, *self.parked]

    def served(self, endpoint: str) -> bool:
        state = self.states.get(endpoint)
        return state is not None and state.active and state.disabled_at is None

    def enable(self, endpoint: str) -> None:
        """Enable it as an operator does, with the events it missed."""
        self.states[endpoint] = replace(
            self.states[endpoint], disabled_at=None, disabled_because=None, failing_since=None
        )


class MemoryLanes:
    """One dispatcher's view of the log. ``broken`` makes every call fail, like a full disk."""

    def __init__(self, log: MemoryLog, name: str = "here") -> None:
        self.log, self.name = log, name
        self.broken = False
        self.settled: list[Settlement] = []
        self.calls: Counter[str] = Counter()
        """The number of calls of each kind."""
        self.shifts: list[int] = []
        """By how much the clock was followed, each time."""
        self.wanted: list[dict[str, int]] = []
        """The arguments of each claim."""
        self.health: list[Health] = []

    async def sync_endpoints(self, names: Sequence[str]) -> None:
        await self._commit("sync_endpoints")
        for name in self.log.states.keys() | set(names):
            state = self.log.states.get(name, EndpointState(name, active=True))
            self.log.states[name] = replace(state, active=name in names)
        for name in names:
            if name not in self.log.endpoints:
                self.log.endpoints.append(name)
                for stream, records in self.log.events.items():
                    self.log.rows.append(Row(len(self.log.rows) + 1, name, stream, cursor=len(records)))

    async def reclaim(self) -> None:
        await self._commit("reclaim")
        for row in self.log.leasable():
            if row.owner == self.name:
                row.owner, row.next_at = None, self.log.clock.now_ms()

    async def free(self, owners: Collection[str]) -> None:
        await self._commit("free")
        for row in self.log.leasable():
            if row.owner in owners:
                row.owner, row.next_at = None, self.log.clock.now_ms()

    async def claim(
        self, wants: Mapping[str, int], *, lease_ms: int, shares: Mapping[str, StreamShare] = MappingProxyType({})
    ) -> list[Lane]:
        await self._commit("claim")
        self.wanted.append(dict(wants))
        now_ms, claimed = self.log.clock.now_ms(), []
        for endpoint, count in wants.items():
            share = shares.get(endpoint)
            due = [r for r in self.log.rows if r.endpoint == endpoint and _is_due(r.next_at, r.stream, share, now_ms)]
            if not self.log.served(endpoint):
                continue
            for row in sorted(due, key=lambda r: r.next_at or 0)[:count]:
                row.owner, row.fence, row.next_at = self.name, row.fence + 1, now_ms + lease_ms
                claimed.append(
                    Lane(
                        id=row.id,
                        endpoint=endpoint,
                        stream=row.stream,
                        cursor=row.cursor,
                        last_sent=row.last_sent,
                        attempts=row.attempts,
                        fence=row.fence,
                        lease_until=row.next_at,
                        room=self.log.where[row.stream][0],
                        participant=self.log.where[row.stream][1],
                        failing_since=row.failing_since if row.attempts else None,
                    )
                )
        return claimed

    async def read(self, stream: int, after: int, limit: int) -> list[Record]:
        await self._commit("read")
        return [r for r in self.log.events[stream] if r.sequence > after][:limit]

    def hasten(self) -> None:
        """Everything is settled at once."""

    async def settle(self, settlement: Settlement, *, awaited: bool = True) -> None:
        await self._commit("settle")
        self.log.tries += settlement.tries
        row = self._held(settlement.lane, settlement.fence)
        if row is None:
            raise Fenced("the lane is held by another dispatcher")
        row.cursor, row.last_sent, row.attempts = settlement.cursor, settlement.last_sent, settlement.attempts
        if settlement.next_at is not None:
            row.next_at, row.owner, row.failing_since = settlement.next_at, None, settlement.failing_since
            row.failed_at, row.outage = settlement.failed_at, settlement.outage
            if settlement.outage:
                self._put_back(row, None)
        if settlement.dead is not None:
            self.log.dead.append(settlement.dead)
        if (parked := settlement.parked) is not None:
            self.log.parked.append(
                Aside(
                    row.id,
                    parked.sequence,
                    row.endpoint,
                    parked.attempts,
                    parked.reason,
                    parked.previous,
                    parked.retry_at,
                    self.log.clock.now_ms(),
                    parked.failed_at,
                    parked.outage,
                )
            )
        self.settled.append(settlement)

    async def renew(self, lanes: Iterable[tuple[int, int]], *, lease_ms: int) -> set[int]:
        await self._commit("renew")
        kept = [row for lane, fence in lanes if (row := self._held(lane, fence)) is not None]
        for row in kept:
            row.next_at = self.log.clock.now_ms() + lease_ms
        return {row.id for row in kept}

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        await self._commit("release")
        for lane, fence in lanes:
            if (row := self._held(lane, fence)) is not None:
                more = len(self.log.events[row.stream]) > row.cursor
                row.owner, row.next_at = None, self.log.clock.now_ms() if more else None

    async def claim_parked(
        self, wants: Mapping[str, int], *, lease_ms: int, shares: Mapping[str, StreamShare] = MappingProxyType({})
    ) -> list[ParkedEvent]:
        await self._commit("claim_parked")
        now_ms, claimed = self.log.clock.now_ms(), []
        for endpoint, count in wants.items():
            share = shares.get(endpoint)
            stream_of = {row.id: row.stream for row in self.log.rows}
            mine = [one for one in self.log.parked if one.endpoint == endpoint]
            due = [one for one in mine if _is_due(one.next_at, stream_of[one.lane], share, now_ms)]
            if not self.log.served(endpoint):
                continue
            for one in sorted(due, key=lambda one: one.next_at)[:count]:
                one.owner, one.fence, one.next_at = self.name, one.fence + 1, now_ms + lease_ms
                stream = next(row.stream for row in self.log.rows if row.id == one.lane)
                claimed.append(
                    ParkedEvent(
                        lane=one.lane,
                        endpoint=endpoint,
                        stream=stream,
                        record=self.log.events[stream][one.sequence - 1],
                        attempts=one.attempts,
                        previous=one.previous,
                        fence=one.fence,
                        lease_until=one.next_at,
                        room=self.log.where[stream][0],
                        participant=self.log.where[stream][1],
                    )
                )
        return claimed

    async def settle_parked(self, settlement: ParkedSettlement) -> None:
        await self._commit("settle_parked")
        self.log.tries += settlement.tries
        key = (settlement.lane, settlement.sequence, settlement.fence, self.name)
        one = next((one for one in self.log.parked if (one.lane, one.sequence, one.fence, one.owner) == key), None)
        if one is None:
            raise Fenced("the parked event is held by another dispatcher")
        if settlement.retry_at is not None:
            one.owner, one.next_at, one.attempts = None, settlement.retry_at, settlement.attempts
            one.failed_at, one.outage = settlement.failed_at, settlement.outage
            one.reason = settlement.reason or one.reason
            return
        self.log.parked.remove(one)
        if settlement.dead is not None:
            self.log.dead.append(settlement.dead)

    async def recover(self, endpoint: str, *, since: int | None) -> int:
        await self._commit("recover")
        now_ms = self.log.clock.now_ms()
        rows = [row for row in self.log.rows if row.endpoint == endpoint]
        count = 0
        for row in rows:
            if put_back := self._put_back(row, since):
                row.next_at, row.attempts, count = row.failing_since, max(row.attempts - 1, 1), count + put_back
        waiting: list[Row | Aside] = [*rows, *(one for one in self.log.parked if one.endpoint == endpoint)]
        for one in waiting:
            if one.owner is not None or (one.next_at or 0) <= now_ms or not _failed_by_endpoint(one, since):
                continue
            if isinstance(one, Aside):
                one.next_at, one.attempts = one.parked_at, max(one.attempts - 1, 0)
            else:
                one.next_at, one.attempts = one.failing_since or now_ms, max(one.attempts - 1, 1)
            count += 1
        return count

    def _put_back(self, row: Row, since: int | None) -> int:
        count = 0
        while row.owner is None:
            parked = {one.sequence: one for one in self.log.parked if one.lane == row.id}
            head = parked.get(row.last_sent)
            if head is None or head.owner is not None or not _failed_by_endpoint(head, since):
                break
            self.log.parked.remove(head)
            row.cursor, row.last_sent, count = head.sequence - 1, head.previous, count + 1
            row.attempts, row.failing_since = max(1, head.attempts), head.parked_at
        return count

    async def endpoint_states(self, names: Collection[str]) -> dict[str, EndpointState]:
        await self._commit("endpoint_states")
        return {name: state for name, state in self.log.states.items() if name in names}

    async def api_lanes(self, streams: Collection[int]) -> dict[int, list[str]]:
        """Every endpoint has a lane on every stream here."""
        return {stream: [] for stream in streams}

    async def due_api_endpoints(self) -> tuple[set[str], set[str]]:
        return set(), set()

    async def note_health(self, health: Sequence[Health]) -> None:
        await self._commit("note_health")
        self.health += health
        for one in health:
            state = self.log.states[one.endpoint]
            self.log.states[one.endpoint] = replace(
                state,
                failing_since=one.failing_since,
                succeeded_at=state.succeeded_at if one.succeeded_at is None else one.succeeded_at,
                failed_at=state.failed_at if one.failed_at is None else one.failed_at,
                last_error=state.last_error if one.last_error is None else one.last_error,
                resting_until=one.resting_until if one.has_rest_changed else state.resting_until,
            )

    async def disable(self, endpoint: str, because: DisabledBecause) -> bool:
        await self._commit("disable")
        state = self.log.states[endpoint]
        if state.disabled_at is not None:
            return False
        self.log.states[endpoint] = replace(state, disabled_at=self.log.clock.now_ms(), disabled_because=because)
        return True

    async def shift(self, by_ms: int, *, beyond: int) -> None:
        await self._commit("shift")
        self.shifts.append(by_ms)
        now_ms = self.log.clock.now_ms()
        for row in self.log.leasable():
            if row.next_at is None:
                continue
            if row.owner is not None:
                row.next_at += by_ms if by_ms > 0 and row.next_at > beyond else 0
                continue
            if row.attempts and row.next_at > beyond:
                row.next_at += by_ms
            elif row.next_at > now_ms:
                row.next_at = now_ms
        for row in self.log.rows:
            if row.failing_since is not None:
                row.failing_since = Jump(by_ms, beyond).past(row.failing_since)

    async def last_sequences(self, streams: Sequence[int]) -> dict[int, int]:
        await self._commit("last_sequences")
        return {stream: len(self.log.events[stream]) for stream in streams}

    def _held(self, lane: int, fence: int) -> Row | None:
        return next((r for r in self.log.rows if r.id == lane and r.fence == fence and r.owner == self.name), None)

    async def _commit(self, what: str) -> None:
        self.calls[what] += 1
        await asyncio.sleep(0)
        if self.broken:
            raise OutboxError("the disk is full")


def _is_due(next_at: int | None, stream: int, share: StreamShare | None, now_ms: int) -> bool:
    if next_at is None or next_at > now_ms:
        return False
    if share is None or stream % share.of == share.remainder:
        return True
    return not share.only and next_at <= now_ms - 2_000


def _failed_by_endpoint(one: Row | Aside, since: int | None) -> bool:
    return one.outage or (since is not None and one.failed_at is not None and one.failed_at >= since)
