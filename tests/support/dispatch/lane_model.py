"""A minimal model of the log's lanes and parked events, compared with the real log."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from relay.outbox import schema
from tests.support.outbox.outbox_store import HandClock


@dataclass
class Leasable:
    owner: str | None = None
    next_at: int | None = None
    attempts: int = 0
    fence: int = 0
    began: int | None = None
    """The start of its failures: a lane's head, or a parked event since it was parked."""
    failed_at: int | None = None
    outage: bool = True

    def failed_with_endpoint(self, since: int | None) -> bool:
        return self.outage or (since is not None and self.failed_at is not None and self.failed_at >= since)

    def due(self, now: int) -> bool:
        return self.next_at is not None and self.next_at <= now

    def claim(self, by: str, lease_until: int, fence: int) -> None:
        """``fence`` is any later one: a server gives it by its clock."""
        assert fence > self.fence
        self.owner, self.next_at, self.fence = by, lease_until, fence

    def holds(self, fence: int) -> bool:
        """Whether a claim is still valid: not claimed again since, and not released."""
        return self.fence == fence and self.owner is not None


@dataclass
class ALane(Leasable):
    cursor: int = 0
    last_sent: int = 0


@dataclass
class Aside(Leasable):
    """A parked event."""

    previous: int = 0


class LogModel:
    """Streams, lanes and parked events of endpoints that are all active. Each endpoint gets events about the others."""

    def __init__(self, clock: HandClock, streams: Collection[int], endpoints: Collection[str]) -> None:
        self._clock, self._endpoints, self._streams = clock, endpoints, streams
        self.newest = dict.fromkeys(streams, 0)
        self.lanes = {(stream, endpoint): ALane(fence=clock.at) for stream in streams for endpoint in endpoints}
        self.aside: dict[tuple[int, int], Aside] = {}
        self.dead: set[tuple[int, int]] = set()
        """By lane and sequence, as the former."""
        self.disabled: set[str] = set()
        self._about: dict[str, int] = {}

    woken_since_ms = 0
    """How long a lane that an append wakes has been due then."""

    def grow(self, stream: int, count: int) -> None:
        self.newest[stream] += count
        for (of, _), lane in self.lanes.items():
            if of == stream and lane.next_at is None:
                lane.next_at = self._clock.at - self.woken_since_ms

    def tell(self, about: str) -> None:
        """Append to the relay's own stream about this endpoint."""
        if about not in self._about:
            self._about[about] = stream = len(self.newest) + 1
            self.newest[stream] = 0
            self.lanes |= {
                (stream, endpoint): ALane(fence=self._clock.at) for endpoint in self._endpoints if endpoint != about
            }
        self.grow(self._about[about], 1)

    def tell_undelivered(self, stream: int, endpoint: str) -> None:
        if stream in self._streams:
            self.tell(endpoint)

    def put_back(self, lane_id: int, lane: ALane, since: int | None) -> bool:
        """Move parked events back to the head of their lane while nothing was sent after them; return whether any
        moved."""
        moved = False
        while lane.owner is None and (parked := self.aside.get((lane_id, lane.last_sent))) is not None:
            if parked.owner is not None or not parked.failed_with_endpoint(since):
                break
            del self.aside[lane_id, lane.last_sent]
            lane.cursor, lane.last_sent, moved = lane.last_sent - 1, parked.previous, True
            lane.attempts, lane.began = max(1, parked.attempts), parked.began
            lane.fence = max(lane.fence, parked.fence)
        return moved

    def recover(self, lane_ids: Mapping[int, ALane], since: int | None, *, every: bool = False) -> None:
        """The endpoint of these lanes accepts events again."""
        now = self._clock.at
        for lane_id, lane in lane_ids.items():
            if self.put_back(lane_id, lane, since):
                lane.next_at, lane.attempts = min(lane.began or now, now), max(lane.attempts - 1, 1)
        aside = [one for (lane_id, _), one in self.aside.items() if lane_id in lane_ids]
        waiting: list[tuple[Leasable, int]] = [*((lane, 1) for lane in lane_ids.values()), *((one, 0) for one in aside)]
        for one, least in waiting:
            waits = one.owner is None and one.next_at is not None and one.next_at > now
            if waits and (every or one.failed_with_endpoint(since)):
                one.next_at = now if one.began is None else min(one.began, now)
                if not every:
                    one.attempts = max(one.attempts - 1, min(one.attempts, least))

    def of(self, endpoint: str) -> Iterator[tuple[int, ALane]]:
        """The endpoint's lanes, and their streams."""
        return ((stream, lane) for (stream, name), lane in self.lanes.items() if name == endpoint)

    def kept(self) -> tuple[object, ...]:
        """The expected content of the log: see :func:`kept`."""
        return self.newest, self.lanes, self.aside, self.dead


def kept(connection: sa.Connection) -> tuple[object, ...]:
    """The actual content of the log, in the form of :meth:`LogModel.kept`."""
    streams, lanes, parked = (connection.execute(sa.select(t)) for t in (schema.streams, schema.lanes, schema.parked))
    dead = connection.execute(sa.select(schema.dead_letters.c.lane, schema.dead_letters.c.sequence))
    return (
        {row.sid: row.last_sequence for row in streams},
        {
            (row.sid, row.endpoint): ALane(
                row.owner,
                row.next_at,
                row.attempts,
                row.fence,
                row.failing_since,
                row.failed_at,
                row.outage,
                row.cursor,
                row.last_sent,
            )
            for row in lanes
        },
        {
            (row.lane, row.sequence): Aside(
                row.owner,
                row.next_at,
                row.attempts,
                row.fence,
                row.parked_at,
                row.failed_at,
                row.outage,
                row.previous,
            )
            for row in parked
        },
        {tuple(row) for row in dead},
    )
