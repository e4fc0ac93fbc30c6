"""Lanes and parked events under any order of claims, settles, retries, releases, parking, disabling and passing time,
beside a model of a few lines."""

import asyncio
import tempfile
from collections.abc import Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Literal, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.errors import Fenced
from relay.events.catalog import CATALOG
from relay.outbox.log.endpoints import Endpoints
from relay.outbox.log.resends import Resend
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.operator.redelivery import Redelivery
from relay.outbox.outbox import Outbox
from relay.outbox.records import DeadLetter, Lane, ParkedEvent, ParkedSettlement, Parking, Settlement, StreamShare
from tests.support.builders import EPOCH_MS, durable, new_stream
from tests.support.dispatch.lane_model import ALane, Aside, LogModel, kept
from tests.support.outbox.outbox_store import HandClock, Store, sqlite

STREAMS, ENDPOINTS, DISPATCHERS = (1,), ("a", "b"), ("first", "second")
LEASE_MS, OVERDUE_MS = 100, 2_000
SHARES = (None, StreamShare(0, 2), StreamShare(1, 2))
T = TypeVar("T")


class Lanes(RuleBasedStateMachine):
    """Two dispatchers over two lanes: few, so that claims of the same one meet often."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.clock = HandClock(EPOCH_MS)
        self.outboxes: dict[str, Outbox] = {}
        self.logs: dict[int, StreamLog] = {}
        self.log = LogModel(self.clock, STREAMS, ENDPOINTS)
        self.claims: list[tuple[str, Lane]] = []
        """Every claim that was ever made, and its owner: old ones are tried again."""
        self.claims_aside: list[tuple[str, ParkedEvent]] = []
        self.claims_again: list[tuple[str, ParkedEvent]] = []
        """Of events that are sent again."""
        self.resends: dict[int, tuple[str, int] | None] = {}
        """Who holds a resend that was ever claimed, by which fence."""
        self.sent_again: dict[int, int] = {}
        """The last sequence that each resend is done with."""

    def store(self) -> AbstractAsyncContextManager[Store]:
        return sqlite(Path(self.stack.enter_context(tempfile.TemporaryDirectory())), migrated=True)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        async def opened() -> None:
            store = await self.stack.enter_async_context(self.store())
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

    def model(self, lane: Lane) -> ALane:
        return self.log.lanes[lane.stream, lane.endpoint]

    def holds(self, lane: Lane) -> bool:
        return self.model(lane).holds(lane.fence)

    @property
    def endpoint_of(self) -> dict[int, str]:
        return {lane.id: lane.endpoint for _, lane in self.claims}

    @rule(stream=st.sampled_from(STREAMS), count=st.integers(1, 3))
    def append(self, stream: int, count: int) -> None:
        log = self.logs[stream]
        first = log.last_sequence + 1
        self.run(_done(log.append([durable(stream, first + n) for n in range(count)])))
        self.log.grow(stream, count)

    @rule(by=st.sampled_from(DISPATCHERS), most=st.integers(1, 2), share=st.sampled_from(SHARES))
    def claim(self, by: str, most: int, share: StreamShare | None = None) -> None:
        shares = {} if share is None else dict.fromkeys(ENDPOINTS, share)
        asked = dict.fromkeys(ENDPOINTS, most)
        lanes = self.run(self.outboxes[by].lanes.claim(asked, lease_ms=LEASE_MS, shares=shares))
        for endpoint in ENDPOINTS:
            due = [lane for stream, lane in self.log.of(endpoint) if self.is_due(stream, lane, share)]
            due = [] if endpoint in self.log.disabled else due
            assert sum(lane.endpoint == endpoint for lane in lanes) == min(most, len(due))
        for lane in lanes:
            model = self.model(lane)
            assert model.due(self.clock.at)
            model.claim(by, self.clock.at + LEASE_MS, lane.fence)
            assert (lane.cursor, lane.attempts, lane.lease_until) == (model.cursor, model.attempts, model.next_at)
            self.claims.append((by, lane))

    def is_due(self, stream: int, lane: ALane, share: StreamShare | None) -> bool:
        own = share is None or stream % share.of == share.remainder
        return lane.due(self.clock.at if own else self.clock.at - OVERDUE_MS)

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        count=st.integers(0, 3),
        retry_in=st.none() | st.integers(0, 3 * LEASE_MS),
        outage=st.booleans(),
        asked=st.booleans(),
    )
    def settle(self, data: st.DataObject, count: int, retry_in: int | None, outage: bool, asked: bool) -> None:
        by, lane = data.draw(st.sampled_from(self.claims))
        model, newest = self.model(lane), self.log.newest[lane.stream]
        if retry_in is None:
            cursor = min(model.cursor + count, newest)
            last_sent = cursor if cursor > model.cursor else model.last_sent
            settlement = Settlement(lane.id, lane.fence, cursor, last_sent, 0)
        else:
            settlement = Settlement(
                lane.id,
                lane.fence,
                model.cursor,
                model.last_sent,
                model.attempts + 1,
                next_at=self.clock.at + retry_in,
                failing_since=model.began if model.attempts and model.began is not None else self.clock.at,
                failed_at=None if asked else self.clock.at,
                outage=outage,
            )
        refused = self.run(_refused(self.outboxes[by].lanes.settle(settlement)))
        assert refused is not self.holds(lane)
        if not refused:
            model.cursor, model.last_sent, model.attempts = settlement[2:5]
            if settlement.next_at is not None:
                model.next_at, model.owner, model.began = settlement.next_at, None, settlement.failing_since
                model.failed_at, model.outage = settlement.failed_at, settlement.outage
                if outage:
                    self.log.put_back(lane.id, model, None)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        by, lane = data.draw(st.sampled_from(self.claims))
        self.run(self.outboxes[by].lanes.release([(lane.id, lane.fence)]))
        if self.holds(lane):
            model = self.model(lane)
            more = model.cursor < self.log.newest[lane.stream]
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
        for model in (*self.log.lanes.values(), *self.log.aside.values()):
            if model.owner == by:
                model.owner, model.next_at = None, self.clock.at
        self.resends = {key: None if held and held[0] == by else held for key, held in self.resends.items()}

    @rule(ended=st.sampled_from(DISPATCHERS))
    def end(self, ended: str) -> None:
        """The other one frees what it held."""
        (other,) = set(DISPATCHERS) - {ended}
        self.run(self.outboxes[other].lanes.free([ended]))
        for model in (*self.log.lanes.values(), *self.log.aside.values()):
            if model.owner == ended:
                model.owner, model.next_at = None, self.clock.at
        self.resends = {key: None if held and held[0] == ended else held for key, held in self.resends.items()}

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        how=st.sampled_from(["park", "bury"]),
        retry_in=st.integers(0, 2 * LEASE_MS),
        outage=st.booleans(),
    )
    def give_up_the_head(self, data: st.DataObject, how: str, retry_in: int, outage: bool) -> None:
        by, lane = data.draw(st.sampled_from(self.claims))
        model = self.model(lane)
        if model.cursor == self.log.newest[lane.stream]:
            return
        head, previous, now = model.cursor + 1, model.last_sent, self.clock.at
        parking = Parking(head, 3, "status 500", previous, now + retry_in, now, outage) if how == "park" else None
        dead = DeadLetter(head, 12, "status 500", previous) if how == "bury" else None
        settlement = Settlement(lane.id, lane.fence, head, head, 0, dead=dead, parked=parking)
        refused = self.run(_refused(self.outboxes[by].lanes.settle(settlement)))
        assert refused is not self.holds(lane)
        if not refused:
            model.cursor, model.last_sent, model.attempts = head, head, 0
            if parking:
                self.log.aside[lane.id, head] = Aside(None, parking.retry_at, 3, lane.fence, now, now, outage, previous)
            else:
                self.log.dead.add((lane.id, head))
            self.log.tell_undelivered(lane.stream, lane.endpoint)

    @rule(by=st.sampled_from(DISPATCHERS), endpoint=st.sampled_from(ENDPOINTS))
    def ask_for_all_again(self, by: str, endpoint: str) -> None:
        """What is settled is sent again: beside the lanes, of which nothing changes."""
        control = Redelivery(self.outboxes[by]._commit, self.outboxes[by]._reader, self.clock)
        self.run(control.resend(Resend(endpoint, 0, 1 << 60, tuple(CATALOG)), lambda room, _: bool(room)))

    @rule(by=st.sampled_from(DISPATCHERS), most=st.integers(1, 2))
    def claim_aside(self, by: str, most: int) -> None:
        claimed = self.run(self.outboxes[by].lanes.claim_parked(dict.fromkeys(ENDPOINTS, most), lease_ms=LEASE_MS))
        events = [event for event in claimed if event.resend is None]
        for event in claimed:
            if event.resend is not None:
                key = event.lane, event.record.sequence
                assert event.endpoint not in self.log.disabled
                assert key not in self.log.aside
                assert key not in self.log.dead
                assert event.record.sequence > self.sent_again.get(event.resend, 0)
                self.resends[event.resend] = by, event.fence
                self.claims_again.append((by, event))
        for endpoint in ENDPOINTS:
            of_endpoint = [aside for (lane, _), aside in self.log.aside.items() if self.endpoint_of[lane] == endpoint]
            due = [aside for aside in of_endpoint if aside.due(self.clock.at) and endpoint not in self.log.disabled]
            assert sum(event.endpoint == endpoint for event in events) == min(most, len(due))
        for event in events:
            model = self.log.aside[event.lane, event.record.sequence]
            assert model.due(self.clock.at)
            model.claim(by, self.clock.at + LEASE_MS, event.fence)
            assert (event.attempts, event.previous, event.lease_until) == (
                model.attempts,
                model.previous,
                model.next_at,
            )
            self.claims_aside.append((by, event))

    @precondition(lambda self: self.claims_aside)
    @rule(
        data=st.data(),
        what=st.sampled_from(["done", "dead", "retry"]),
        retry_in=st.integers(0, 2 * LEASE_MS),
        outage=st.booleans(),
    )
    def settle_aside(
        self, data: st.DataObject, what: Literal["done", "dead", "retry"], retry_in: int, outage: bool
    ) -> None:
        by, event = data.draw(st.sampled_from(self.claims_aside))
        key = event.lane, event.record.sequence
        settlement = ParkedSettlement(
            event.lane,
            event.record.sequence,
            event.fence,
            event.attempts + 1,
            retry_at=self.clock.at + retry_in if what == "retry" else None,
            dead=DeadLetter(event.record.sequence, 12, "timeout", event.previous) if what == "dead" else None,
            failed_at=self.clock.at if what == "retry" else None,
            outage=outage,
        )
        model = self.log.aside.get(key)
        held = model is not None and model.holds(event.fence)
        assert self.run(_refused(self.outboxes[by].lanes.settle_parked(settlement))) is not held
        if model is None or not held:
            return
        if settlement.retry_at is not None:
            model.attempts, model.owner, model.next_at = settlement.attempts, None, settlement.retry_at
            model.failed_at, model.outage = settlement.failed_at, settlement.outage
            return
        del self.log.aside[key]
        if what == "dead":
            self.log.dead.add(key)
            self.log.tell_undelivered(event.stream, event.endpoint)

    @precondition(lambda self: self.claims_again)
    @rule(data=st.data(), retry_in=st.none() | st.integers(0, 2 * LEASE_MS), outage=st.booleans())
    def settle_again(self, data: st.DataObject, retry_in: int | None, outage: bool) -> None:
        by, event = data.draw(st.sampled_from(self.claims_again))
        assert event.resend is not None
        settlement = ParkedSettlement(
            event.lane,
            event.record.sequence,
            event.fence,
            event.attempts + 1,
            retry_at=None if retry_in is None else self.clock.at + retry_in,
            failed_at=None if retry_in is None else self.clock.at,
            outage=outage,
            resend=event.resend,
        )
        held = self.resends[event.resend] == (by, event.fence)
        assert self.run(_refused(self.outboxes[by].lanes.settle_parked(settlement))) is not held
        if held:
            self.resends[event.resend] = None
            if retry_in is None:
                self.sent_again[event.resend] = event.record.sequence

    @rule(by=st.sampled_from(DISPATCHERS), endpoint=st.sampled_from(ENDPOINTS))
    def disable(self, by: str, endpoint: str) -> None:
        disabled = self.run(self.outboxes[by].lanes.disable(endpoint, "operator"))
        assert disabled is (endpoint not in self.log.disabled)
        if disabled:
            self.log.disabled.add(endpoint)
            self.log.tell(endpoint)

    @precondition(lambda self: self.log.disabled)
    @rule(endpoint=st.sampled_from(ENDPOINTS), replay=st.booleans())
    def enable(self, endpoint: str, replay: bool) -> None:
        outbox = self.outboxes["first"]
        skipped = self.run(Endpoints(outbox._commit, outbox._database, self.clock).enable(endpoint, replay=replay))
        if endpoint not in self.log.disabled:
            assert skipped is None
            return
        self.log.disabled.remove(endpoint)
        aside = [key for key in self.log.aside if self.endpoint_of[key[0]] == endpoint]
        lanes = list(self.log.of(endpoint))
        if replay:
            self.log.recover(self.lanes_of(endpoint), 0, every=True)
        else:
            assert skipped == len(aside) + sum(self.log.newest[stream] - lane.cursor for stream, lane in lanes)
            for key in aside:
                del self.log.aside[key]
            gone = {event.resend for _, event in self.claims_again if event.endpoint == endpoint}
            self.resends = {key: None if key in gone else held for key, held in self.resends.items()}
            for stream, lane in lanes:
                if lane.cursor < self.log.newest[stream]:
                    lane.cursor, lane.attempts, lane.fence = self.log.newest[stream], 0, lane.fence + 1
                    lane.last_sent = lane.cursor
                    lane.owner = lane.next_at = None
        self.log.tell(endpoint)

    @rule(
        by=st.sampled_from(DISPATCHERS), endpoint=st.sampled_from(ENDPOINTS), ago=st.none() | st.integers(0, LEASE_MS)
    )
    def recover(self, by: str, endpoint: str, ago: int | None) -> None:
        since = None if ago is None else self.clock.at - ago
        self.run(self.outboxes[by].lanes.recover(endpoint, since=since))
        self.log.recover(self.lanes_of(endpoint), since)

    def lanes_of(self, endpoint: str) -> dict[int, ALane]:
        """The endpoint's lanes by their numbers; one that was never claimed has nothing that failed."""
        return {lane.id: self.model(lane) for _, lane in self.claims if lane.endpoint == endpoint}

    @rule(ms=st.integers(1, 2 * LEASE_MS) | st.just(OVERDUE_MS))
    def time_passes(self, ms: int) -> None:
        self.clock.at += ms

    @invariant()
    def the_log_has_what_is_expected(self) -> None:
        if self.logs:
            assert self.run(_done(self.outboxes["second"]._reader.query(kept))) == self.log.kept()

    @invariant()
    def what_is_unsettled_is_what_is_behind_the_cursors_or_parked(self) -> None:
        if self.logs:
            behind = dict.fromkeys(ENDPOINTS, 0)
            for (stream, endpoint), model in self.log.lanes.items():
                behind[endpoint] += self.log.newest[stream] - model.cursor
            for lane, _ in self.log.aside:
                behind[self.endpoint_of[lane]] += 1
            assert self.run(self.outboxes["second"].lanes.unsettled()) == behind


async def _done(future: asyncio.Future[T]) -> T:
    return await future


async def _refused(settling: Awaitable[None]) -> bool:
    try:
        await settling
    except Fenced:
        return True
    return False


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
