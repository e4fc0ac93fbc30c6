"""Everything that one dispatcher holds at the moment: lanes, the tails of their streams, and who is ready to send."""

import asyncio
from collections.abc import Mapping

from relay.dispatch.lane import HeldLane, Phase
from relay.dispatch.resting import Resting
from relay.dispatch.route import Route
from relay.dispatch.stream_tail import StreamTail
from relay.outbox.records import Lane


class Holdings:
    """Knows, and keeps consistent; decides nothing."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self.routes = routes
        self.lanes: dict[int, HeldLane] = {}
        self.tails: dict[int, StreamTail] = {}
        self.ready: dict[str, asyncio.Queue[HeldLane]] = {name: asyncio.Queue() for name in routes}
        """Per endpoint, the lanes that its workers may take."""
        self.resting = Resting()
        self.stirred = asyncio.Event()
        """Set whenever a lane comes to rest or leaves: what a drain waits on."""

    def adopt(self, lane: Lane, now_ms: int) -> HeldLane:
        """Take a claimed lane in. An older claim of ours to the same lane is over."""
        if (old := self.lanes.get(lane.id)) is not None:
            self.drop(old)
        self.resting.discard((lane.stream, lane.endpoint))
        tail = self.tails.get(lane.stream)
        if tail is None:
            tail = self.tails[lane.stream] = StreamTail(lane.stream, lane.cursor)
        elif lane.cursor > tail.end:
            tail.restart(lane.cursor)
        tail.more = True
        held = HeldLane(lane, self.routes[lane.endpoint], tail, now_ms)
        self.lanes[lane.id] = tail.lanes[lane.endpoint] = held
        return held

    def drop(self, lane: HeldLane) -> None:
        """Forget a lane, and its stream's tail with the last one."""
        if lane.phase is Phase.GONE:
            return
        lane.phase = Phase.GONE
        del self.lanes[lane.id]
        tail = lane.tail
        del tail.lanes[lane.route.name]
        if not tail.lanes:
            del self.tails[tail.number]
        self.stirred.set()

    def rest(self, lane: HeldLane, until_ms: int) -> None:
        """The log has let the lane go until then."""
        self.resting.add((lane.tail.number, lane.route.name), until_ms)
        self.drop(lane)

    def missing(self, stream: int) -> bool:
        """Whether a lane of this stream is neither held nor resting, so that a ring for it is a reason to claim."""
        tail = self.tails.get(stream)
        held = tail.lanes if tail else {}
        return any(name not in held and (stream, name) not in self.resting for name in self.routes)

    def busy(self) -> bool:
        """Whether anything held is still on its way."""
        return any(lane.phase is not Phase.IDLE for lane in self.lanes.values()) or any(
            tail.reading for tail in self.tails.values()
        )
