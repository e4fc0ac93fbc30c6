"""The operator's access to the log, beside any relay that runs on it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from relay.clock import Clock
from relay.outbox.log.api_endpoints import ApiEndpoints
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.endpoints import Endpoints
from relay.outbox.log.reader import Reader
from relay.outbox.opening import log_clock, opened_database
from relay.outbox.operator.browsing import Browsing
from relay.outbox.operator.inspection import Inspection
from relay.outbox.operator.purge import Purge
from relay.outbox.operator.redelivery import Redelivery


@dataclass(frozen=True, slots=True)
class Log:
    """The operations on a log from outside a relay."""

    inspection: Inspection
    endpoints: Endpoints
    api_endpoints: ApiEndpoints
    redelivery: Redelivery
    purge: Purge
    browsing: Browsing
    break_off: Callable[[], None]
    """Wait for the database no longer, as :meth:`relay.outbox.outbox.Outbox.break_off`."""


@asynccontextmanager
async def open_log(url: str, clock: Clock) -> AsyncIterator[Log]:
    """Open the log of this ``outbox.url``, and update its tables. Raises ``OutboxError`` if it cannot be used.

    A missing log is created: a caller that only wants to look checks for its file first.
    """
    database = await opened_database(url)
    clock = log_clock(database, clock)
    try:
        commit, reader = GroupCommit(database, clock), Reader(database)
        try:
            yield Log(
                Inspection(reader, clock),
                Endpoints(commit, database, clock),
                ApiEndpoints(commit, reader, clock),
                Redelivery(commit, reader, clock),
                Purge(commit, reader, database, clock),
                Browsing(reader),
                database.break_off,
            )
        finally:
            await commit.aclose()
            await reader.aclose()
    finally:
        database.close()
