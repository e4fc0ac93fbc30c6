"""A relay as its log on this machine shows it, whether it runs or not."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from fnmatch import fnmatchcase

from relay.cli.log import CLOCK, event_types, known, named, opened
from relay.cli.output.delivery_blocker import WaitsFor, waits_for
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.dispatch.endpoint.directory import ApiEndpointDirectory
from relay.dispatch.endpoint.subscription import Subscription
from relay.dispatch.http.outcome import Outcome
from relay.errors import ConfigError
from relay.outbox.log.processes import FleetState
from relay.outbox.log.resends import ALL, Resend, Resent
from relay.outbox.opening import holds_log
from relay.outbox.operator.access import Log
from relay.outbox.operator.event_queries import EventFilter
from relay.outbox.operator.redelivery import Retried
from relay.outbox.operator.views import (
    AttemptView,
    DeliveryState,
    DeliveryView,
    EndpointView,
    EventDeliveries,
    EventView,
)

_EVERY_S = 0.5
"""Between two looks for what is new."""


@asynccontextmanager
async def log_relay(config: Config) -> AsyncIterator["LogRelay"]:
    """The configuration's log, opened at the first question that needs it: a ping needs none."""
    async with AsyncExitStack() as stack:
        yield LogRelay(config, stack)


class LogRelay:
    """See :class:`relay.cli.relay.OperatedRelay`."""

    def __init__(self, config: Config, stack: AsyncExitStack) -> None:
        self._config, self._stack = config, stack
        self._opened: Log | None = None
        self._endpoints: dict[str, Endpoint] = {each.name: each for each in config.endpoints}
        """Those of the configuration, and with the log those made over the API."""
        self._subscriptions: dict[str, Subscription] = {}

    async def _log(self) -> Log:
        if self._opened is None:
            self._opened = log = await self._stack.enter_async_context(opened(self._config))
            allow = self._config.api.runtime_endpoints.allow if self._config.api else ()
            directory = ApiEndpointDirectory(log.api_endpoints, allow=allow)
            await directory.poll()
            self._endpoints = {**directory.endpoints, **self._endpoints}
            self._subscriptions = {name: Subscription(endpoint) for name, endpoint in self._endpoints.items()}
        return self._opened

    async def fleet(self) -> FleetState:
        log = await self._log()
        return await log.inspection.fleet()

    async def endpoints(self) -> list[tuple[EndpointView, str]]:
        log = await self._log()
        views = await log.inspection.endpoints(wanted=self._wants)
        there, now = {view.state.name for view in views}, CLOCK.now_ms()
        views += [EndpointView.new(name) for name in self._endpoints if name not in there]
        return [(view, view.word(self._endpoints, now)) for view in views]

    async def disable(self, name: str) -> bool:
        log = await self._log()
        await self._prove_known(name)
        await log.endpoints.introduce(name)
        return await log.endpoints.disable(name, "operator")

    async def enable(self, name: str, *, skip: bool) -> tuple[int | None, WaitsFor | None]:
        log = await self._log()
        await self._prove_known(name)
        skipped = await log.endpoints.enable(name, replay=not skip)
        return skipped, await waits_for(log, self._config, name)

    async def ping(self, name: str) -> tuple[str, Outcome]:
        from relay.dispatch.endpoint.route import (  # with the HTTP client, which only this command needs
            ping,
            post_sample,
        )

        endpoint, now = await self._configured(name), CLOCK.now_ms()
        sample = ping(name, now)
        return sample.id, await post_sample(endpoint, sample, now)

    async def deliveries(
        self, states: Collection[DeliveryState], *, endpoint: str | None, since: int, limit: int
    ) -> list[DeliveryView]:
        log = await self._log()
        await self._prove_known(endpoint)
        return await log.inspection.deliveries(states, wanted=self._wants, endpoint=endpoint, since=since, limit=limit)

    async def delivery(self, event_id: str, *, endpoint: str | None) -> EventDeliveries | None:
        log = await self._log()
        await self._prove_known(endpoint)
        return await log.inspection.delivery(event_id, endpoint=endpoint)

    async def retry(self, event_id: str, endpoint: str) -> tuple[Retried, WaitsFor | None]:
        log = await self._log()
        await self._prove_known(endpoint)
        retried = await log.redelivery.retry(event_id, endpoint)
        due = retried in (Retried.REVIVED, Retried.HASTENED, Retried.UNDER_WAY)
        return retried, await waits_for(log, self._config, endpoint) if due else None

    async def names(self, endpoint: str | None) -> list[str]:
        log = await self._log()
        await self._prove_known(endpoint)
        return await log.inspection.endpoint_names() if endpoint is None else [endpoint]

    async def retry_dead(self, name: str, *, since: int) -> AsyncIterator[int]:
        async for count in (await self._log()).redelivery.retry_dead(name, since=since):
            yield count

    async def discard_dead(self, name: str, *, since: int) -> AsyncIterator[int]:
        async for count in (await self._log()).redelivery.discard_dead(name, since=since):
            yield count

    async def waits_for(self, name: str) -> WaitsFor | None:
        return await waits_for(await self._log(), self._config, name)

    async def remove(self, name: str) -> None:
        log = await self._log()
        if not await log.api_endpoints.remove(name):
            await self._prove_known(name)
            raise ConfigError(f"{name} was not made over the HTTP API: it is taken out of the configuration file")

    async def resend(
        self, endpoint: str, *, since: int, until: int | None, pattern: str, room: str, dry_run: bool
    ) -> tuple[Resent, WaitsFor | None]:
        subscription = Subscription(await self._configured(endpoint))
        log = await self._log()
        types = [each for each in event_types(pattern) if subscription.wants_type(each)]
        resent = await log.redelivery.resend(
            Resend(endpoint, since, ALL if until is None else until, types),
            lambda name, identity: fnmatchcase(name, room) and subscription.wants_stream(name, identity),
            dry_run=dry_run,
        )
        return resent, await waits_for(log, self._config, endpoint) if resent.events else None

    async def events(self, *, room: str, participant: str, pattern: str, since: int, limit: int) -> list[EventView]:
        log = await self._log()
        which = EventFilter(room, participant, event_types(pattern))
        return await log.inspection.events(which, since=since, limit=limit)

    async def appended(self, *, room: str, participant: str, pattern: str) -> AsyncIterator[EventView]:
        log = await self._log()
        end = await log.inspection.tail(EventFilter(room, participant, event_types(pattern)))
        while True:
            for view in await log.inspection.appended(end):
                yield view
            await asyncio.sleep(_EVERY_S)

    async def attempted(self, endpoint: str | None) -> AsyncIterator[AttemptView]:
        log = await self._log()
        await self._prove_known(endpoint)
        newest = await log.inspection.newest_attempt()
        while True:
            for attempt in await log.inspection.attempts(behind=newest, endpoint=endpoint):
                newest = attempt.n
                yield attempt
            await asyncio.sleep(_EVERY_S)

    async def event(self, event_id: str) -> EventView | None:
        log = await self._log()
        return await log.inspection.event(event_id)

    async def _prove_known(self, name: str | None) -> None:
        log = await self._log()
        if name not in self._endpoints:
            await known(log, self._config, name)

    async def _configured(self, name: str) -> Endpoint:
        if name not in self._endpoints and await asyncio.to_thread(holds_log, self._config.outbox.url):
            await self._log()
        return named(self._endpoints.values(), name)

    def _wants(self, endpoint: str, room: str, participant: str, event_type: str) -> bool:
        subscription = self._subscriptions.get(endpoint)
        return subscription is None or (
            subscription.wants_stream(room, participant) and subscription.wants_type(event_type)
        )
