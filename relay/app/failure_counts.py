"""Counts, for the metrics, failed sources and exceeded limits that job processes append to the log."""

import asyncio
import logging
from collections import Counter

from relay.errors import OutboxError
from relay.events.catalog import parse
from relay.events.operator import CaptureLimited
from relay.events.source import SourceFailed
from relay.outbox.operator.event_queries import EventFilter
from relay.outbox.outbox import Outbox
from relay.telemetry.metrics import Counts

logger = logging.getLogger(__name__)

EVERY_S = 5.0
"""Seconds between two reads of the log. Prometheus scrapes less often than that."""

_TYPES = tuple(str(kind.model_fields["type"].default) for kind in (SourceFailed, CaptureLimited))


class FailureCounts:
    """Counts since this process started. Job processes have no metrics of their own: what they append is counted
    here."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._failed: Counter[tuple[str, ...]] = Counter()
        self._limited: Counter[tuple[str, ...]] = Counter()

    @property
    def metrics(self) -> tuple[Counts, ...]:
        return (
            Counts("sources_failed", "Outages of what is heard with.", ("detector", "reason"), lambda: self._failed),
            Counts("capture_limited", "Times that a limit of capture was told of.", ("limit",), lambda: self._limited),
        )

    async def run(self) -> None:
        """Run until cancelled."""
        tail = await self._outbox.tail(EventFilter(types=_TYPES))
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                for body in await tail():
                    self._count(body)
            except OutboxError as error:
                logger.warning("failures cannot be counted for the metrics now: %s", error)

    def _count(self, body: bytes) -> None:
        match parse(body):
            case SourceFailed(data=data):
                self._failed[data.detector, data.reason] += 1
            case CaptureLimited(data=data):
                self._limited[data.limit,] += 1
