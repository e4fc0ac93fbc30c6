"""Lanes under any order of claims, settles, retries, releases and passing time, beside a model of a few lines."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.errors import Fenced
from relay.outbox import schema
from relay.outbox.outbox import Outbox
from relay.outbox.records import Lane, Settlement
from relay.outbox.stream_log import StreamLog
from tests.support.outbox_store import EPOCH_MS, HandClock, durable, new_stream, sqlite

STREAMS, ENDPOINTS, DISPATCHERS = (1,), ("a", "b"), ("first", "second")
LEASE_MS = 100
T = TypeVar("T")


@dataclass
class Expected:
    """What a lane must be."""

    cursor: int = 0
    attempts: int = 0
    fence: int = 0
    owner: str | None = None
    next_at: int | None = None


class Lanes(RuleBasedStateMachine):
    """Two dispatchers over two lanes: few, so that claims of the same one meet often."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.clock = HandClock(EPOCH_MS)
        self.outboxes: dict[str, Outbox] = {}
        self.logs: dict[int, StreamLog] = {}
        self.expected = {(stream, endpoint): Expected() for stream in STREAMS for endpoint in ENDPOINTS}
        self.claims: list[tuple[str, Lane]] = []
        """Every claim that was ever made, and by whom: old ones are tried again."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        async def opened() -> None:
            folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
            store = await self.stack.enter_async_context(sqlite(folder))
            store.clock = self.clock
            # leases of writers are not what this is about
            self.outboxes = {name: await store.open(name, lease_ms=1 << 40) for name in DISPATCHERS}
            await self.outboxes["first"].lanes.sync_endpoints(ENDPOINTS)
            self.logs = {n: await self.outboxes["first"].open_stream(new_stream(n)) for n in STREAMS}

        self.run(opened())
        for stream in STREAMS:  # so that most of what follows has something to act on
            self.append(stream, 2)
        self.claim("first", 2)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    def model(self, lane: Lane) -> Expected:
        return self.expected[lane.stream, lane.endpoint]

    def holds(self, lane: Lane) -> bool:
        """Whether a claim still counts: nobody has claimed the lane since, and it was not let go."""
        return self.model(lane).fence == lane.fence and self.model(lane).owner is not None

    @rule(stream=st.sampled_from(STREAMS), count=st.integers(1, 3))
    def append(self, stream: int, count: int) -> None:
        log = self.logs[stream]
        first = log.last_sequence + 1
        self.run(_done(log.append([durable(stream, first + n) for n in range(count)])))
        for endpoint in ENDPOINTS:
            lane = self.expected[stream, endpoint]
            if lane.next_at is None:
                lane.next_at = self.clock.at

    @rule(by=st.sampled_from(DISPATCHERS), most=st.integers(1, 2))
    def claim(self, by: str, most: int) -> None:
        lanes = self.run(self.outboxes[by].lanes.claim(dict.fromkeys(ENDPOINTS, most), lease_ms=LEASE_MS))
        for endpoint in ENDPOINTS:
            due = [
                lane
                for (_, name), lane in self.expected.items()
                if name == endpoint and lane.next_at is not None and lane.next_at <= self.clock.at
            ]
            assert sum(lane.endpoint == endpoint for lane in lanes) == min(most, len(due))
        for lane in lanes:
            model = self.model(lane)
            assert model.next_at is not None
            assert model.next_at <= self.clock.at
            model.fence, model.owner, model.next_at = model.fence + 1, by, self.clock.at + LEASE_MS
            told = (lane.cursor, lane.attempts, lane.fence, lane.lease_until)
            assert told == (model.cursor, model.attempts, model.fence, model.next_at)
            self.claims.append((by, lane))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), count=st.integers(0, 3), retry_in=st.none() | st.integers(0, 3 * LEASE_MS))
    def settle(self, data: st.DataObject, count: int, retry_in: int | None) -> None:
        by, lane = data.draw(st.sampled_from(self.claims))
        model, newest = self.model(lane), self.logs[lane.stream].last_sequence
        if retry_in is None:
            cursor = min(model.cursor + count, newest)
            settlement = Settlement(lane.id, lane.fence, cursor, cursor, 0)
        else:
            cursor, attempts = model.cursor, model.attempts + 1
            settlement = Settlement(lane.id, lane.fence, cursor, cursor, attempts, next_at=self.clock.at + retry_in)
        refused = self.run(_refused(self.outboxes[by].lanes.settle(settlement)))
        assert refused is not self.holds(lane)
        if not refused:
            model.cursor, model.attempts = settlement.cursor, settlement.attempts
            if settlement.next_at is not None:
                model.next_at, model.owner = settlement.next_at, None

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        by, lane = data.draw(st.sampled_from(self.claims))
        self.run(self.outboxes[by].lanes.release([(lane.id, lane.fence)]))
        if self.holds(lane):
            model = self.model(lane)
            more = model.cursor < self.logs[lane.stream].last_sequence
            model.owner, model.next_at = None, self.clock.at if more else None

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        by, lane = data.draw(st.sampled_from(self.claims))
        self.run(self.outboxes[by].lanes.renew([(lane.id, lane.fence)], lease_ms=LEASE_MS))
        if self.holds(lane):
            self.model(lane).next_at = self.clock.at + LEASE_MS

    @rule(by=st.sampled_from(DISPATCHERS))
    def restart(self, by: str) -> None:
        self.run(self.outboxes[by].lanes.reclaim())
        for model in self.expected.values():
            if model.owner == by:
                model.owner, model.next_at = None, self.clock.at

    @rule(ms=st.integers(1, 2 * LEASE_MS))
    def time_passes(self, ms: int) -> None:
        self.clock.at += ms

    @invariant()
    def the_log_has_what_is_expected(self) -> None:
        if self.logs:
            kept = self.run(_done(self.outboxes["second"]._reader.query(_kept)))
            assert kept == self.expected

    @invariant()
    def what_is_unsettled_is_what_is_behind_the_cursors(self) -> None:
        if self.logs:
            behind = dict.fromkeys(ENDPOINTS, 0)
            for (stream, endpoint), model in self.expected.items():
                behind[endpoint] += self.logs[stream].last_sequence - model.cursor
            assert self.run(self.outboxes["second"].lanes.unsettled()) == behind


def _kept(connection: sa.Connection) -> dict[tuple[int, str], Expected]:
    return {
        (row.sid, row.endpoint): Expected(row.cursor, row.attempts, row.fence, row.owner, row.next_at)
        for row in connection.execute(sa.select(schema.lanes))
    }


async def _done(future: asyncio.Future[T]) -> T:
    return await future


async def _refused(settling: asyncio.Future[None]) -> bool:
    try:
        await settling
    except Fenced:
        return True
    return False


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
