"""The endpoints made over the API, as this process knows them from the log."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from pydantic import IPvAnyNetwork, ValidationError

from relay.config.api_endpoint import ApiEndpoint, api_endpoint
from relay.outbox.log.api_endpoints import ApiEndpoints
from relay.outbox.records import StoredApiEndpoint

Changes = Mapping[str, ApiEndpoint | None]
"""By name; None for one that was removed."""

log = logging.getLogger(__name__)


class ApiEndpointDirectory:
    """Follows the log, change by change: what did not change costs nothing."""

    def __init__(
        self,
        stored: ApiEndpoints,
        *,
        allow: Iterable[IPvAnyNetwork],
        apply: Callable[[Changes], None] = lambda _: None,
    ) -> None:
        """``allow``: networks that may be reached besides public addresses. ``apply`` gets each change."""
        self._stored, self._allow, self._apply = stored, tuple(allow), apply
        self._known: dict[str, ApiEndpoint] = {}
        self._records: dict[str, StoredApiEndpoint] = {}
        self._change = 0
        self._polling = asyncio.Lock()

    @property
    def endpoints(self) -> Mapping[str, ApiEndpoint]:
        """By name. If an endpoint of the configuration has a name, the one here is not sent to."""
        return MappingProxyType(self._known)

    @property
    def records(self) -> Mapping[str, StoredApiEndpoint]:
        """As the log has them, by name."""
        return MappingProxyType(self._records)

    async def poll(self) -> None:
        """Take over what has changed in the log."""
        async with self._polling:
            found = await self._stored.changes(self._change)
            changes: dict[str, ApiEndpoint | None] = {}
            for each in found:
                self._change = max(self._change, each.change)
                changes[each.name] = endpoint = None if each.removed else self._endpoint(each)
                if endpoint is None:
                    self._known.pop(each.name, None)
                    self._records.pop(each.name, None)
                else:
                    self._known[each.name], self._records[each.name] = endpoint, each
            if changes:
                self._apply(changes)

    async def run(self, every_s: float, *, read: Callable[[], None] = lambda: None) -> None:
        """Poll until cancelled, call ``read`` after each time, and remove what has expired.

        Raises ``OutboxError`` if the log cannot be used.
        """
        while True:
            for name in await self._stored.remove_expired():
                log.info("endpoint %s has expired: it is removed", name, extra={"endpoint": name})
            await self.poll()
            read()
            await asyncio.sleep(every_s)

    def _endpoint(self, stored: StoredApiEndpoint) -> ApiEndpoint | None:
        try:
            return api_endpoint(
                stored.name,
                stored.options,
                secrets=stored.secrets,
                tenant=stored.tenant,
                within=stored.within,
                allow=self._allow,
            )
        except ValidationError:  # written by another version; its text may have values
            log.error(  # noqa: TRY400 - for operators
                "endpoint %s has options that this version does not take: nothing is sent to it; "
                "make it again over the API",
                stored.name,
                extra={"endpoint": stored.name},
            )
            return None
