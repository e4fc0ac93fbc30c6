"""Keeps the dispatcher to the endpoints that are made over the API."""

import asyncio
import logging
from collections.abc import Collection

from relay.config.api import RuntimeEndpoints as Rules
from relay.config.api import listening
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.endpoint.directory import ApiEndpointDirectory, Changes
from relay.errors import OutboxError
from relay.outbox.log.api_endpoints import ApiEndpoints
from relay.telemetry.log_dedup import Outage

logger = logging.getLogger(__name__)

EVERY_S = 0.5
"""Seconds between two looks for changes by another process; those of this one are applied at once."""


class RuntimeEndpointSync:
    """Follows the log. An endpoint of the configuration wins where both have a name."""

    def __init__(self, stored: ApiEndpoints, config: Config) -> None:
        self._stored = stored
        served = listening(config.api, config.admin)
        rules = config.api.runtime_endpoints if config.api else Rules()
        self._tenants = served.tenants if served else {}
        self._dispatcher: Dispatcher | None = None
        self._configured = {endpoint.name for endpoint in config.endpoints}
        self._replaced: set[str] = set()
        self.directory = ApiEndpointDirectory(stored, allow=rules.allow, apply=self._apply)

    async def start(self) -> None:
        """Read them, without those that expired meanwhile, confined to what the tenants' tokens allow now."""
        await self._stored.remove_expired()
        await self._stored.confine(self._tenants)
        await self.directory.poll()

    def send_with(self, dispatcher: Dispatcher) -> None:
        """Send to them from now on."""
        self._dispatcher = dispatcher
        self._apply(self.directory.endpoints)

    def give_way(self, endpoints: Collection[Endpoint]) -> None:
        """The configuration has these endpoints now, and the dispatcher has taken them over."""
        former, self._configured = self._configured, {endpoint.name for endpoint in endpoints}
        back = {name: made for name in former if (made := self.directory.endpoints.get(name))}
        if self._dispatcher is not None:
            self._dispatcher.revise(back)
        self._report()

    async def run(self) -> None:
        """Run until cancelled."""
        outage = Outage(logger, "changes of endpoints cannot be read now")
        while True:
            try:
                await self.directory.run(EVERY_S, read=outage.over)
            except OutboxError as error:
                outage.failed(error)
                await asyncio.sleep(EVERY_S)

    def _apply(self, changes: Changes) -> None:
        if self._dispatcher is not None:
            self._dispatcher.revise(changes)
            self._report()

    def _report(self) -> None:
        replaced = self._configured & self.directory.endpoints.keys()
        for name in sorted(replaced - self._replaced):
            logger.warning(
                "endpoint %s of the configuration replaces the one of this name that was made over the API: "
                "nothing is sent to that one until the configuration's is renamed or removed",
                name,
                extra={"endpoint": name},
            )
        self._replaced = replaced
