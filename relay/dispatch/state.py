"""All that one dispatcher holds: lanes, parked events, stream tails, due retries, and their endpoints."""

import asyncio
from collections.abc import Container, Iterable, Mapping

from relay.config.endpoint import Endpoint
from relay.dispatch.clock_jump import Jump
from relay.dispatch.endpoint.runtime import EndpointRuntime
from relay.dispatch.lanes import HeldLane, HeldParked
from relay.dispatch.leases import lease_ms_for
from relay.dispatch.share import Share, Shares
from relay.dispatch.stream_tail import StreamTail
from relay.dispatch.work import Phase, Work
from relay.outbox.records import Lane, ParkedEvent

LaneKey = tuple[int, str]
"""(stream, endpoint)"""

HELD = 4000
"""Maximum lanes held by one process, besides two for each endpoint: each lease is renewed individually."""
_LISTED = 10_000
"""Streams whose lanes are remembered, at least."""
_UNLISTED = 2_000
"""Streams whose lanes are asked for at once."""
_MOST_QUEUED = 512
"""Maximum lanes of one endpoint that wait for a worker."""


class DispatcherState:
    """Stores the state and keeps it consistent; decides nothing."""

    def __init__(self, endpoints: Iterable[EndpointRuntime], shares: Shares) -> None:
        self.shares = shares
        self.endpoints: dict[str, EndpointRuntime] = {}
        """Those that are awake."""
        self.everywhere: dict[str, EndpointRuntime] = {}
        """Those of the configuration: each has a lane on every stream."""
        self.dormant: dict[str, Endpoint] = {}
        """Those made over the API that have nothing to do."""
        self.due: set[str] = set()
        """Endpoints made over the API for which there is a reason to claim."""
        self.unlisted: set[int] = set()
        """Streams that have grown, and of which it is not known which of those endpoints have a lane on them."""
        self._listed: dict[int, list[str]] = {}
        """Which of those endpoints have a lane on a stream."""
        for endpoint in endpoints:
            self.add(endpoint)
        self.lanes: dict[int, HeldLane] = {}
        self.parked: dict[tuple[int, int, int], HeldParked] = {}
        self.tails: dict[int, StreamTail] = {}
        """By stream, like the next."""
        self.lanes_by_stream: dict[int, dict[str, HeldLane]] = {}
        """The lanes held on each stream, by endpoint."""
        self.retries = RetryTimer()
        self.claim_requested = True  # for what was due before the start
        """Whether there is a reason to claim."""
        self.parked_claim_requested = False
        """Whether there is a reason to claim parked events before the next sweep."""
        self.withdrawing: set[EndpointRuntime] = set()
        """Endpoints whose lanes are to be released."""
        self.wake = self.retries.earlier
        """Set when there is work before the next sweep."""
        self.progressed = asyncio.Event()
        """Set when a lane becomes idle or is removed: a drain waits for it."""

    def add(self, endpoint: EndpointRuntime) -> None:
        """An endpoint is awake, or has changed."""
        self.endpoints[endpoint.name] = endpoint
        endpoint.take_share(self.shares.of(endpoint.name, endpoint.route.config.concurrency))
        if endpoint.by_api:
            self.everywhere.pop(endpoint.name, None)
        else:
            self.everywhere[endpoint.name] = endpoint

    def remove(self, name: str) -> EndpointRuntime:
        """An endpoint is not awake any more."""
        self.everywhere.pop(name, None)
        return self.endpoints.pop(name)

    @property
    def has_api_endpoints(self) -> bool:
        return bool(self.dormant) or len(self.everywhere) < len(self.endpoints)

    def idle_endpoints(self) -> set[str]:
        """Endpoints made over the API of which nothing is held, or known that the log does not have."""
        if len(self.everywhere) == len(self.endpoints):
            return set()
        busy = {held.endpoint for held in self.held()} | self.withdrawing
        waiting = self.retries.endpoints()
        return {
            name
            for name, endpoint in self.endpoints.items()
            if endpoint.by_api and endpoint.is_calm and endpoint not in busy and name not in waiting
        }

    @property
    def lease_ms(self) -> int:
        """The lease length that outlasts an attempt at any of the endpoints."""
        return lease_ms_for(max((one.route.timeout for one in self.endpoints.values()), default=0))

    @property
    def free_lanes(self) -> int:
        """How many more lanes may be held."""
        return HELD + 2 * len(self.endpoints) - len(self.lanes)  # of each that hangs, one in flight and one queued

    @property
    def queue_limit(self) -> int:
        """How many lanes of one endpoint may wait for a worker: half of the lanes held are never queued, whichever
        endpoints hang."""
        return max(1, min(_MOST_QUEUED, HELD // 2 // max(1, len(self.endpoints))))

    def adopt(self, lane: Lane, now_ms: int) -> HeldLane:
        """Add a claimed lane. It replaces an older claim of ours to the same lane."""
        if (old := self.lanes.get(lane.id)) is not None:
            self.drop(old)
            self._read_again(lane)
        of_stream = self.lanes_by_stream.get(lane.stream, {})
        if lane.endpoint in of_stream:
            # Another lane: a standby that has taken over lacked the stream, and has given its number to another one.
            for stale in list(of_stream.values()):
                self.drop(stale)
        self.retries.discard((lane.stream, lane.endpoint))
        tail = self.tails.get(lane.stream)
        if tail is None:
            tail = self.tails[lane.stream] = StreamTail(lane.stream, lane.cursor)
            self.lanes_by_stream[lane.stream] = {}
        tail.more = True
        held = HeldLane(lane, self.endpoints[lane.endpoint], tail, now_ms)
        self.lanes[lane.id] = self.lanes_by_stream[lane.stream][lane.endpoint] = held
        return held

    def _read_again(self, lost: Lane) -> None:
        """A lane was lost while it was held, as by a purge: the log may not have what was read of its stream."""
        if lost.stream not in self.tails:
            return
        tail = self.tails[lost.stream] = StreamTail(lost.stream, lost.cursor)
        for lane in self.lanes_by_stream[lost.stream].values():
            lane.tail = tail

    def adopt_parked(self, claim: ParkedEvent) -> HeldParked:
        """Add a claimed event. It replaces an older claim of ours to the same event."""
        held = HeldParked(claim, self.endpoints[claim.endpoint])
        if (old := self.parked.get(held.key())) is not None:
            self.drop(old)
        self.parked[held.key()] = held
        return held

    def held(self) -> list[HeldLane | HeldParked]:
        """Every lane and every parked event."""
        return [*self.lanes.values(), *self.parked.values()]

    def drop(self, work: Work) -> None:
        """Forget a lane, and its stream's tail with the last one, or a parked event."""
        if work.phase is Phase.GONE:
            return
        work.phase = Phase.GONE
        if isinstance(work, HeldLane):
            self._forget_lane(work)
        elif isinstance(work, HeldParked):
            self._forget_parked(work)
        self.progressed.set()

    def _forget_lane(self, lane: HeldLane) -> None:
        del self.lanes[lane.id]
        stream = lane.tail.number
        del self.lanes_by_stream[stream][lane.endpoint.name]
        if not self.lanes_by_stream[stream]:
            del self.lanes_by_stream[stream], self.tails[stream]

    def _forget_parked(self, parked: HeldParked) -> None:
        del self.parked[parked.key()]
        if parked.endpoint.has_unclaimed_parked or parked.resend:
            parked.endpoint.has_unclaimed_parked = True
            self.parked_claim_requested = True
            self.wake.set()

    def lapse(self, work: Work) -> None:
        """Its lease may end during an attempt: the process was suspended, or leases cannot be renewed.

        The sweep releases a lane. A parked event is claimed again after its lease.
        """
        if isinstance(work, HeldLane):
            work.phase, work.lease_until = Phase.IDLE, 0
        else:
            self.drop(work)

    def wait_for_retry(self, lane: HeldLane, until_ms: int) -> None:
        """The log has released the lane until then."""
        self.retries.add((lane.tail.number, lane.endpoint.name), until_ms)
        self.drop(lane)

    def request_claim(self) -> None:
        """Record that there is a reason to claim."""
        self.claim_requested = True
        self.wake.set()

    def withdraw(self, endpoint: EndpointRuntime) -> None:
        """Have the endpoint's lanes released: nothing is sent to it for now."""
        endpoint.has_unclaimed = True
        self.withdrawing.add(endpoint)
        self.wake.set()

    def needs_claim(self, stream: int) -> bool:
        """Whether an own lane of this stream is neither held nor waiting for a retry: its ring requires a claim.

        Endpoints that cannot use a lane now are excluded and marked as having more.
        """
        held = self.lanes_by_stream.get(stream, {})
        reason = False
        for name, endpoint in self.everywhere.items():
            if name in held or (stream, name) in self.retries or not endpoint.fleet_share.owns(stream):
                continue
            if endpoint.lane_capacity(self.queue_limit):
                reason = True
            else:
                endpoint.has_unclaimed = True
        if not self.has_api_endpoints:
            return reason
        if (listed := self._listed.get(stream)) is None:
            if len(self.unlisted) >= _UNLISTED:
                return reason  # the sweep asks the log which endpoints have something due
            self.unlisted.add(stream)
            return True
        return self._is_due(stream, listed, held) or reason

    def list_lanes(self, lanes: Mapping[int, list[str]]) -> None:
        """Which endpoints made over the API have a lane on these streams, which have grown."""
        if len(self._listed) > _LISTED:
            self._listed.clear()
        self._listed |= lanes
        for stream, names in lanes.items():
            self._is_due(stream, names, self.lanes_by_stream.get(stream, {}))

    def forget_listed(self) -> None:
        """Endpoints were made or changed: they may have new lanes."""
        self._listed.clear()

    def _is_due(self, stream: int, names: Iterable[str], held: Container[str]) -> bool:
        """Whether there is a reason to claim for any of these endpoints, which have a lane on a stream."""
        reason = False
        for name in names:
            if name in held or (stream, name) in self.retries or not self.owns(name, stream):
                continue
            endpoint = self.endpoints.get(name)
            if endpoint is None or endpoint.lane_capacity(self.queue_limit):
                self.due.add(name)
                reason = True
            else:
                endpoint.has_unclaimed = True
        return reason

    def take_shares(self) -> None:
        """The dispatchers are others than before: each endpoint's share has changed."""
        for endpoint in self.endpoints.values():
            endpoint.take_share(self.shares.of(endpoint.name, endpoint.route.config.concurrency))

    def owns(self, name: str, stream: int) -> bool:
        """Whether the endpoint's lane on this stream is in this dispatcher's share."""
        return self._share_of(name).owns(stream)

    def is_mine(self, name: str) -> bool:
        """Whether this dispatcher sends to an endpoint at all."""
        return self._share_of(name).slots > 0

    def _share_of(self, name: str) -> Share:
        if (endpoint := self.endpoints.get(name)) is not None:
            return endpoint.fleet_share
        dormant = self.dormant.get(name)
        return self.shares.of(name, 1 if dormant is None else dormant.concurrency)

    def refill(self, endpoint: EndpointRuntime) -> None:
        """One of its lanes was taken: claim more if there may be more, before its workers run out."""
        if endpoint.has_unclaimed and self.free_lanes > 0 and endpoint.ready.qsize() <= self.queue_limit // 2:
            self.request_claim()

    def busy(self) -> bool:
        """Whether anything held is still in progress."""
        return any(work.phase is not Phase.IDLE for work in self.held()) or any(
            tail.reading for tail in self.tails.values()
        )

    def shift(self, jump: Jump, now_ms: int) -> None:
        """The wall clock was set: adjust every held time as the log adjusts its own."""
        longest = now_ms + self.lease_ms
        for held in self.held():
            later = jump.moved(held.lease_until) if jump.by_ms > 0 else held.lease_until
            held.lease_until = min(later, longest)
        for lane in self.lanes.values():
            lane.used_at = jump.past(lane.used_at)
            if lane.failing_since is not None:
                lane.failing_since = jump.past(lane.failing_since)
        self.retries.shift(jump)
        for endpoint in self.endpoints.values():
            endpoint.condition.shift(jump)


class RetryTimer:
    """Tracks released lanes until their retry is due, so that they are claimed then and not before.

    A cache: the log is authoritative, and a lane that is missing here costs at most a sweep.
    """

    def __init__(self) -> None:
        self.earliest: int | None = None
        """When the first of them is due, in epoch milliseconds."""
        self.earlier = asyncio.Event()
        """Set when ``earliest`` has become earlier."""
        self._until: dict[LaneKey, int] = {}

    def __contains__(self, key: LaneKey) -> bool:
        return key in self._until

    def add(self, key: LaneKey, until_ms: int) -> None:
        """The log has released this lane until then."""
        self._until[key] = until_ms
        if self.earliest is None or until_ms < self.earliest:
            self.earliest = until_ms
            self.earlier.set()

    def discard(self, key: LaneKey) -> None:
        """The lane is held again."""
        self._until.pop(key, None)

    def shift(self, jump: Jump) -> None:
        """The wall clock was set: later due times move along."""
        self._until = {key: jump.moved(at) for key, at in self._until.items()}
        self.earliest = min(self._until.values(), default=None)
        self.earlier.set()

    def endpoints(self) -> set[str]:
        """The endpoints of the lanes."""
        return {name for _, name in self._until}

    def take_due(self, now_ms: int) -> set[str]:
        """Forget the lanes that are due, or were when they were added; returns their endpoints."""
        if self.earliest is None or now_ms < self.earliest:
            return set()
        due = {name for (_, name), at in self._until.items() if at <= now_ms}
        self._until = {key: at for key, at in self._until.items() if at > now_ms}
        self.earliest = min(self._until.values(), default=None)
        return due
