"""The log's lanes in memory: the twin of the real outbox that dispatcher tests run against, with the same semantics."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relay.clock import Clock
from relay.errors import Fenced, OutboxError
from relay.events.envelope import Delivery
from relay.outbox.records import Attempt, DeadLetter, Lane, Logged, Record, Settlement


@dataclass
class Row:
    """A lane as it stands in the log."""

    id: int
    endpoint: str
    stream: int
    cursor: int = 0
    last_sent: int = 0
    attempts: int = 0
    next_at: int | None = None
    owner: str | None = None
    fence: int = 0


@dataclass
class MemoryLog:
    """What all dispatchers share."""

    clock: Clock
    events: dict[int, list[Record]] = field(default_factory=dict)
    where: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Stream → (room, participant's identity)."""
    rows: list[Row] = field(default_factory=list)
    tries: list[Attempt] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    endpoints: list[str] = field(default_factory=list)
    bells: list[Callable[[list[int]], None]] = field(default_factory=list)
    """Whom to ring after an append: ``Dispatcher.ring``."""

    def open(self, room: str = "room", participant: str = "alice") -> int:
        """A new stream; its number."""
        stream = len(self.events) + 1
        self.events[stream], self.where[stream] = [], (room, participant)
        self.rows += [Row(len(self.rows) + i, name, stream) for i, name in enumerate(self.endpoints, 1)]
        return stream

    def append(self, stream: int, *records: Record, ring: bool = True) -> None:
        """One transaction; sequences must go on where the log ends."""
        for record in records:
            assert record.sequence == len(self.events[stream]) + 1
            self.events[stream].append(record)
        for row in self.rows:
            if row.stream == stream and row.next_at is None:
                row.next_at = self.clock.now_ms()
        if ring:
            for bell in self.bells:
                bell([stream])


class MemoryLanes:
    """One dispatcher's view of the log. ``broken`` makes every call fail, as a full disk would."""

    def __init__(self, log: MemoryLog, name: str = "here") -> None:
        self.log, self.name = log, name
        self.broken = False
        self.settled: list[Settlement] = []

    async def sync_endpoints(self, names: Sequence[str]) -> None:
        await self._commit()
        for name in names:
            if name not in self.log.endpoints:
                self.log.endpoints.append(name)
                for stream, records in self.log.events.items():
                    self.log.rows.append(Row(len(self.log.rows) + 1, name, stream, cursor=len(records)))

    async def reclaim(self) -> None:
        await self._commit()
        for row in self.log.rows:
            if row.owner == self.name:
                row.owner, row.next_at = None, self.log.clock.now_ms()

    async def claim(self, wants: Mapping[str, int], *, lease_ms: int) -> list[Lane]:
        await self._commit()
        now_ms, claimed = self.log.clock.now_ms(), []
        for endpoint, count in wants.items():
            due = [r for r in self.log.rows if r.endpoint == endpoint and r.next_at is not None and r.next_at <= now_ms]
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
                    )
                )
        return claimed

    async def read(self, stream: int, after: int, limit: int) -> list[Logged]:
        await self._commit()
        return [Logged(stream, r) for r in self.log.events[stream] if r.sequence > after][:limit]

    async def settle(self, settlement: Settlement) -> None:
        await self._commit()
        row = self._held(settlement.lane, settlement.fence)
        if row is None:
            raise Fenced("the lane is held by another dispatcher")
        row.cursor, row.last_sent, row.attempts = settlement.cursor, settlement.last_sent, settlement.attempts
        if settlement.next_at is not None:
            row.next_at, row.owner = settlement.next_at, None
        self.log.tries += settlement.tries
        if settlement.dead is not None:
            self.log.dead.append(replace(settlement.dead))
        self.settled.append(settlement)

    async def renew(self, lanes: Iterable[tuple[int, int]], *, lease_ms: int) -> None:
        await self._commit()
        for lane, fence in lanes:
            if (row := self._held(lane, fence)) is not None:
                row.next_at = self.log.clock.now_ms() + lease_ms

    async def release(self, lanes: Iterable[tuple[int, int]]) -> None:
        await self._commit()
        for lane, fence in lanes:
            if (row := self._held(lane, fence)) is not None:
                more = len(self.log.events[row.stream]) > row.cursor
                row.owner, row.next_at = None, self.log.clock.now_ms() if more else None

    async def last_sequences(self, streams: Sequence[int]) -> dict[int, int]:
        await self._commit()
        return {stream: len(self.log.events[stream]) for stream in streams}

    def _held(self, lane: int, fence: int) -> Row | None:
        return next((r for r in self.log.rows if r.id == lane and r.fence == fence and r.owner == self.name), None)

    async def _commit(self) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise OutboxError("the disk is full")


def made(
    sequence: int,
    type_: str = "speech.started",
    *,
    stream: str = "A",
    utterance: str | None = None,
    revision: int | None = None,
    expires_at: int | None = None,
    text: str = "hello",
) -> Record:
    """A record as the log would have it. Its body says which it is."""
    event_id = f"evt_{stream}_{sequence}"
    body = {"type": type_, "id": event_id, "stream": {"id": f"str_{stream}", "sequence": sequence}}
    latest = type_ == "transcript.interim"
    return Record(
        sequence=sequence,
        id=event_id,
        type=type_,
        delivery=Delivery.LATEST if latest else Delivery.DURABLE,
        utterance=utterance,
        revision=revision,
        emitted_at=0,
        expires_at=expires_at,
        body=json.dumps({**body, "data": {"text": text}}).encode(),
    )
