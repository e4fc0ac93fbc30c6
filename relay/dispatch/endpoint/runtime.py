"""The runtime state of one endpoint in this process."""

import asyncio
import logging
import math
from collections.abc import Awaitable

from relay.clock import Clock, span
from relay.config.api_endpoint import ApiEndpoint
from relay.config.endpoint import Endpoint
from relay.dispatch.admission import Admission, Permit, Slots
from relay.dispatch.breaker import Change
from relay.dispatch.endpoint.health import Condition
from relay.dispatch.endpoint.route import Route
from relay.dispatch.http.outcome import Delivered, Failed, Fault, Outcome
from relay.dispatch.http.transport import Headers, OpenTransport
from relay.dispatch.policy import Blame
from relay.dispatch.share import Share
from relay.dispatch.work import Work
from relay.events.operator import DisabledBecause
from relay.outbox.records import EVERY_STREAM


class Connection:
    """An endpoint's route and connections under one configuration: what a reload replaces.

    An attempt ends on the connection on which it began.

    Raises ``ConfigError`` for an endpoint whose configuration cannot be used.
    """

    def __init__(self, endpoint: Endpoint, open_transport: OpenTransport) -> None:
        self.route = Route(endpoint)
        self._transport = open_transport(endpoint)
        self._in_flight = 0
        self._idle: asyncio.Event | None = None
        """Set when the last attempt is over, for the task that waits to close."""

    def __enter__(self) -> None:
        """Register an attempt: the connection is closed only after it is over."""
        self._in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._in_flight -= 1
        if self._idle and not self._in_flight:
            self._idle.set()

    def post(self, headers: Headers, body: bytes) -> Awaitable[Outcome]:
        """Make one attempt; see ``Transport``."""
        # not a coroutine: that would be one more to wake for every event
        return self._transport.post(self.route.url, headers, body, self.route.timeout)

    async def aclose(self) -> None:
        """Close the connections after the last attempt."""
        if self._in_flight:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self._transport.aclose()


PROBES = 16
"""Lanes claimed for a probe: most have no event that the endpoint subscribes to."""

RECOVERY_AFTER_MS = 5_000
"""How long an endpoint must have failed for its recovery to be logged; a shorter failure is a retry."""

log = logging.getLogger(__name__)


class EndpointRuntime:
    """One endpoint: its connection, its queue, and whether it may be sent to."""

    def __init__(self, connection: Connection, slots: Slots, clock: Clock) -> None:
        self.connection = connection
        self.ready: asyncio.Queue[Work | None] = asyncio.Queue()
        """Work for its workers; None ends the worker that takes it."""
        self.admission = Admission(connection.route.config, slots, clock)
        self.fleet_share = Share(connection.route.config.concurrency, EVERY_STREAM)
        """Which part of it is this dispatcher's."""
        self.condition = Condition()
        self.written_at = -math.inf
        """When its health was last written, in milliseconds of elapsed time."""
        self.recovered_at = -math.inf
        """When its recovery last made retries due, on the event loop's clock."""
        self.has_unclaimed = True
        """Whether the log may hold due lanes that were not claimed because there was no room or no use for them."""
        self.has_unclaimed_parked = False
        """Whether the log may hold due parked events that were not claimed because there was no room."""
        self.disabled = False
        """Whether it is disabled in the log."""
        self.disabling: DisabledBecause | None = None
        """Why it is to be disabled in the log, from the deciding attempt until the commit."""
        self._succeeded = False
        """Whether it has accepted anything since this process began to send to it."""
        self.workers = 0
        """The number of workers, without those whose end is queued."""

    @property
    def route(self) -> Route:
        return self.connection.route

    @property
    def name(self) -> str:
        return self.connection.route.name

    @property
    def by_api(self) -> bool:
        """Whether it was made over the API: it has lanes only on some streams, and sleeps while it has nothing due."""
        return isinstance(self.route.config, ApiEndpoint)

    @property
    def is_calm(self) -> bool:
        """Whether the log knows all that is known of it here: it is enabled, does not fail, and nothing waits."""
        return (
            not self.disabled
            and self.disabling is None
            and not (self.fleet_share.slots and (self.has_unclaimed or self.has_unclaimed_parked))
            and self.ready.empty()
            and self.condition.is_calm
            and self.admission.is_calm
        )

    @property
    def usable(self) -> bool:
        """Whether any request, including a probe, is allowed."""
        return not self.admission.shut

    def take_share(self, share: Share) -> None:
        """Send this part of its events from now on."""
        if share == self.fleet_share:
            return
        self.fleet_share = share
        self.has_unclaimed = self.has_unclaimed_parked = True
        self.admission.cap(share.slots)

    def follow_rest(self, until: int, rest_ms: int) -> None:
        """Another dispatcher lets it rest until then; this one probes it after ``rest_ms``, if no other has."""
        self.condition.rests(until, by_other=True)
        self.admission.follow_rest(rest_ms)

    def follow_recovery(self) -> None:
        """Another dispatcher has ended its rest."""
        self.condition.rests(None, by_other=True)
        self.admission.follow_recovery()
        self.has_unclaimed = True

    def lane_capacity(self, share: int) -> int:
        """How many more lanes it can use, if ``share`` of them may wait for a worker."""
        admission = self.admission
        if admission.shut:
            return 0
        waiting = self.ready.qsize() + admission.waiting  # workers that wait for a permit hold a lane, too
        if admission.probing:
            return max(0, min(PROBES, share) - waiting) if admission.capacity else 0
        return max(0, share - waiting)

    def parked_capacity(self, held: int) -> int:
        """How many more parked events it can use, if it holds ``held``.

        That is what lanes leave free, and at least a quarter: an endpoint that is always busy would otherwise never get
        them.
        """
        return max(0, self.admission.capacity - self.ready.qsize() - held, self.admission.quarter - held)

    def record_outcome(
        self, connection: Connection, permit: Permit, outcome: Outcome, event: tuple[int, int], *,
        best_effort: bool, began_ms: int, now_ms: int,
    ) -> Blame:  # fmt: skip
        """Record what an attempt at an ``event`` (lane and sequence) says about the endpoint; returns the blame for a
        failure.

        ``best_effort`` marks an interim, whose failure says little.
        """
        if connection is not self.connection:  # the attempt used the endpoint's previous configuration
            return Blame.PAST
        blame = Blame.EVENT
        change = self.admission.record_outcome(permit, outcome, best_effort=best_effort)
        match outcome:
            case Delivered():
                self._report_success(change, now_ms)
                self.condition.succeeded(now_ms)
            case Failed() if not best_effort:
                blame = self.condition.failed(outcome, event, began_ms=began_ms, now_ms=now_ms, probe=permit.probe)
                limit = self.route.config.disable_after
                if limit is not None and self.condition.failing_ms(now_ms) >= limit.total_seconds() * 1000:
                    self.disable("failing")
            case Failed() | Fault():
                pass
        if change is not None:
            _report(self.name, change)
            self.condition.rests(None if change is Change.CLOSED else now_ms + self.admission.rest_ms)
        return blame

    def _report_success(self, change: Change | None, now_ms: int) -> None:
        """Log the first success, and one that ends a longer failure."""
        failed_ms, name = self.condition.failing_ms(now_ms), self.name
        if change is Change.CLOSED or failed_ms >= RECOVERY_AFTER_MS:
            log.info("endpoint %s is back: it has failed for %s", name, span(failed_ms), extra={"endpoint": name})
        elif not self._succeeded:
            log.info("endpoint %s: the first event was delivered", name, extra={"endpoint": name})
        self._succeeded = True

    def disable(self, because: DisabledBecause) -> None:
        """Stop sending to it now; the log is updated as soon as possible."""
        if not self.disabled and self.disabling is None:
            self.disabling = because
            self.admission.close()

    def deactivate(self) -> None:
        """Stop sending to it: it is disabled in the log, or no longer configured."""
        self.disabled, self.disabling = True, None
        self.admission.close()

    def enable(self, condition: Condition) -> None:
        """Send to it again, starting from this known health."""
        self.disabled, self.disabling, self.has_unclaimed = False, None, True
        self.condition = condition
        self.admission.reopen(self.route.config)

    def replace_connection(self, connection: Connection) -> Connection:
        """Switch to another configuration; returns the previous connection, to be closed."""
        former, self.connection = self.connection, connection
        self.admission.adjust(connection.route.config)
        self.condition.rests(None)
        return former


def _report(name: str, change: Change) -> None:
    match change:
        case Change.OPENED:
            log.warning("endpoint %s mostly fails: nothing is sent to it for a while", name, extra={"endpoint": name})
        case Change.REOPENED:
            log.warning("endpoint %s still fails: nothing is sent to it for a while", name, extra={"endpoint": name})
        case Change.CLOSED:
            pass  # the success that closed it is logged
