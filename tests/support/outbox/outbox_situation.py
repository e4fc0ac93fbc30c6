"""A log with an event in every state, for its views; and a participant's events to purge."""

from contextlib import AbstractAsyncContextManager

from relay.ids import event_id
from relay.outbox.operator.access import Log, open_log
from relay.outbox.outbox import Outbox
from relay.outbox.records import Attempt, DeadLetter, Lane, Parking, Settlement
from tests.support.builders import EPOCH_MS, new_stream, run, stream_id
from tests.support.outbox.outbox_store import Store, the_lane

MINUTE = 60_000


def looking(store: Store) -> AbstractAsyncContextManager[Log]:
    """The log as the operator's commands open it, beside the outbox."""
    return open_log(store.url, store.clock)


def event(sequence: int) -> str:
    """The id of an event of the first stream."""
    return event_id(stream_id(1), sequence)


def attempt(lane: Lane, sequence: int, number: int = 1, *, at: int, status: int | None = 200) -> Attempt:
    stage = "ok" if status == 200 else "connect" if status is None else "status"
    return Attempt(lane.id, sequence, number, at, stage, status, 12.5)


async def every_state(store: Store, began: int = EPOCH_MS) -> Outbox:
    """One stream of six events. For crm the first is delivered, the second parked, the third dead, the fourth has
    failed twice, and two wait behind it; for bi nothing has happened yet."""
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm", "bi"])
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 6))
    lane = await the_lane(outbox.lanes, "crm")
    now = store.clock.at = began + 10 * MINUTE
    crm = outbox.lanes
    ok = attempt(lane, 1, at=now)
    await crm.settle(Settlement(lane.id, lane.fence, 1, 1, 0, tries=(ok,)))
    now = store.clock.at = now + MINUTE
    aside = Parking(2, attempts=3, reason="status 500", previous=1, retry_at=now + 5 * MINUTE)
    failed = attempt(lane, 2, 3, at=now, status=500)
    await crm.settle(Settlement(lane.id, lane.fence, 2, 2, 0, tries=(failed,), parked=aside))
    now = store.clock.at = now + MINUTE
    dead = DeadLetter(3, attempts=12, reason="connect: refused", previous=2)
    refused = attempt(lane, 3, 12, at=now, status=None)
    await crm.settle(Settlement(lane.id, lane.fence, 3, 3, 0, tries=(refused,), dead=dead))
    now = store.clock.at = now + MINUTE
    again = attempt(lane, 4, 1, at=now - 500, status=429), attempt(lane, 4, 2, at=now, status=503)
    await crm.settle(Settlement(lane.id, lane.fence, 3, 3, 2, now + MINUTE, again, failing_since=now - 500))
    return outbox
