"""What an operator may change: the same as ``speech-relay endpoints`` and ``deliveries`` do."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import ConfigDict, Field

from relay.api.answers import DeadResult, DiscardResult, ResendResult, RetryResult
from relay.api.backend import Backend, manager, operator, sender
from relay.api.endpoint_answers import EndpointChange, PingResult
from relay.api.problems import OF_ACTIONS, Problem, documented, mistake, named_types
from relay.api.routes.events import EventId
from relay.clock import epoch_ms
from relay.config.fields import Moment
from relay.dispatch.endpoint.route import ping as new_ping
from relay.dispatch.endpoint.route import post_sample
from relay.dispatch.endpoint.subscription import Subscription
from relay.documented import Documented
from relay.outbox.log.resends import ALL, Resend
from relay.outbox.operator.redelivery import Retried as Outcome

MOST_PINGS = 4
"""Pings under way at once of operators, and of each tenant: one must not hold up another's."""
STEPS_S = 10.0
"""Time for the dead events of one request."""
PING_S = 20.0
"""Time for the attempt of a ping: less than the time for an answer of the API."""

Name = Annotated[str, Path(min_length=1, max_length=64, description="The endpoint's name.")]
_REFUSED = {
    Outcome.SETTLED: "It was delivered, or will never be: there is nothing to try again.",
    Outcome.EMPTIED: "Its content was removed: nothing is left to send.",
}


class Order(Documented):
    model_config = ConfigDict(extra="forbid")


class PingOrder(Order):
    """Nothing to choose: ``{}``."""


class DisableOrder(Order):
    """Nothing to choose: ``{}``."""


class EnableOrder(Order):
    skip: bool = False
    """Continue from now: what it has missed is never sent to it."""


class ResendOrder(Order):
    since: Moment
    """Events that were emitted then or later."""
    until: Moment | None = None
    """And before; null for all until now."""
    type: str = Field(default="*", max_length=256)
    """Only such types: ``transcript.*``."""
    room: str = Field(default="*", max_length=256)
    """Only rooms of such a name; a glob."""
    dry_run: bool = False
    """Only count."""


class DeadOrder(Order):
    since: Moment | None = None
    """Only what died then or later."""


class DeliveryOrder(Order):
    endpoint: str = Field(min_length=1, max_length=64)
    """The endpoint whose delivery it is."""


def router(backend: Backend) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["actions"], responses=documented(OF_ACTIONS))
    log, changes = backend.log, backend.log.endpoints
    pings = defaultdict[str | None, asyncio.Semaphore](partial(asyncio.Semaphore, MOST_PINGS))
    """By tenant. The tenants are those of the configuration's tokens."""

    @routes.post("/endpoints/{name}/disable")
    async def disable_endpoint(request: Request, name: Name, order: DisableOrder) -> EndpointChange:
        """Send nothing to an endpoint any more. Its events are kept until it is enabled."""
        await _changeable(backend, request, name)
        await changes.introduce(name)
        return EndpointChange(endpoint=name, changed=await changes.disable(name, "operator"))

    @routes.post("/endpoints/{name}/enable")
    async def enable_endpoint(request: Request, name: Name, order: EnableOrder) -> EndpointChange:
        """Send to an endpoint again: first what it has missed, in order."""
        await _changeable(backend, request, name)
        skipped = await changes.enable(name, replay=not order.skip)
        return EndpointChange(endpoint=name, changed=skipped is not None, skipped=skipped or 0)

    @routes.post("/endpoints/{name}/ping")
    async def ping_endpoint(request: Request, name: Name, order: PingOrder) -> PingResult:
        """Send a signed `ping` now, past the log, as a delivery is sent: one attempt, with `relay-sample: true`.

        A disabled endpoint is sent it, too.
        """
        await _changeable(backend, request, name)
        endpoint = backend.configured(name)
        if endpoint is None:
            raise Problem(409, "The endpoint is not configured any more.")
        viewer = sender(request)
        slots = pings[viewer.tenant]
        if slots.locked():
            raise Problem(429, "Too many pings are under way; continue later.", headers={"Retry-After": "1"})
        async with slots:
            now = backend.clock.now_ms()
            sample = new_ping(name, now)
            outcome = await post_sample(endpoint, sample, now, most_s=PING_S)
        return PingResult.of(name, sample.id, outcome, viewer)

    @routes.post("/endpoints/{name}/resend")
    async def resend_events(request: Request, name: Name, order: ResendOrder) -> ResendResult:
        """Send again what an endpoint has received: the same ids and bytes, in order, with ``relay-resend: true``."""
        operator(request)
        endpoint = backend.configured(name)
        if endpoint is None:
            raise Problem(404, "No endpoint of the configuration has this name.")
        subscription = Subscription(endpoint)
        resent = await log.redelivery.resend(
            _wanted(name, order, subscription, backend.clock.now_ms()),
            lambda room, participant: fnmatchcase(room, order.room) and subscription.wants_stream(room, participant),
            dry_run=order.dry_run,
        )
        return ResendResult(
            endpoint=name, dry_run=order.dry_run, events=resent.events, streams=resent.streams, pruned=resent.pruned
        )

    @routes.post("/deliveries/{event_id}/retry")
    async def retry_delivery(request: Request, event_id: EventId, order: DeliveryOrder) -> RetryResult:
        """Retry a failed event now. A dead event starts its retry schedule again."""
        operator(request)
        await _known(backend, order.endpoint)
        outcome = await log.redelivery.retry(event_id, order.endpoint)
        if outcome is Outcome.UNKNOWN:
            raise _no_delivery()
        if outcome in _REFUSED:
            raise Problem(409, _REFUSED[outcome])
        return RetryResult(event_id=event_id, endpoint=order.endpoint, outcome=outcome.value)

    @routes.post("/endpoints/{name}/dead/retry")
    async def retry_dead(request: Request, name: Name, order: DeadOrder) -> DeadResult:
        """Have every dead event of an endpoint tried again now, each with its whole schedule."""
        operator(request)
        await _known(backend, name)
        return await _in_time(name, log.redelivery.retry_dead(name, since=_since(order)))

    @routes.post("/endpoints/{name}/dead/discard")
    async def discard_dead(request: Request, name: Name, order: DeadOrder) -> DeadResult:
        """Dismiss every dead event of an endpoint: they are not listed any more. A resend can still send them."""
        operator(request)
        await _known(backend, name)
        return await _in_time(name, log.redelivery.discard_dead(name, since=_since(order)))

    @routes.post("/deliveries/{event_id}/discard")
    async def discard_delivery(request: Request, event_id: EventId, order: DeliveryOrder) -> DiscardResult:
        """Dismiss a dead event: it is not listed any more. A resend can still send it."""
        operator(request)
        await _known(backend, order.endpoint)
        if await log.inspection.delivery(event_id, endpoint=order.endpoint) is None:
            raise _no_delivery()
        if not await log.redelivery.discard(event_id, order.endpoint):
            raise Problem(409, "It is not dead: only a dead event can be discarded.")
        return DiscardResult(event_id=event_id, endpoint=order.endpoint)

    return routes


def _since(order: DeadOrder) -> int:
    return 0 if order.since is None else max(0, epoch_ms(order.since))


async def _in_time(name: str, steps: AsyncIterator[int]) -> DeadResult:
    """Take steps for as long as an answer may take."""
    loop, events = asyncio.get_running_loop(), 0
    until = loop.time() + STEPS_S
    async for done in steps:
        events += done
        if loop.time() >= until:
            return DeadResult(endpoint=name, events=events, more=True)
    return DeadResult(endpoint=name, events=events, more=False)


async def _changeable(backend: Backend, request: Request, name: str) -> None:
    """Raises :class:`Problem` if the sender may not disable and enable the endpoint, or it is unknown."""
    viewer = manager(request)
    if viewer.is_operator:
        await _known(backend, name)
    elif backend.made(name, viewer) is None or backend.is_configured(name):
        raise Problem(404, "This tenant has no endpoint of this name.")


async def _known(backend: Backend, name: str) -> None:
    """Raises :class:`Problem` if neither the log nor the configuration knows the endpoint."""
    if backend.configured(name) is None and name not in await backend.log.inspection.endpoint_names():
        raise Problem(404, "No endpoint has this name.")


def _no_delivery() -> Problem:
    return Problem(404, "The log has no such event for this endpoint, or has it no longer.")


def _wanted(name: str, order: ResendOrder, subscription: Subscription, now: int) -> Resend:
    """What is to be sent again. Raises :class:`Problem` if the order makes no sense."""
    since, until = epoch_ms(order.since), ALL if order.until is None else epoch_ms(order.until)
    if since >= (now if order.until is None else until):
        what = "is not before `until`, or before now without it"
        raise mistake("The range of times is empty.", "body.since", what)
    types = [each for each in named_types(order.type, "body.type") if subscription.wants_type(each)]
    return Resend(name, max(0, since), max(0, until), types)
