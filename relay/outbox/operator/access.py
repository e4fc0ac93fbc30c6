"""The operator's access to the log, beside any relay that runs on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from relay.clock import Clock
from relay.outbox.log.commit import GroupCommit
from relay.outbox.log.endpoints import Endpoints
from relay.outbox.log.reader import Reader
from relay.outbox.operator.browsing import Browsing
from relay.outbox.operator.inspection import Inspection
from relay.outbox.operator.purge import Purge
from relay.outbox.operator.redelivery import Control
from relay.outbox.sqlite.database import SQLite
from relay.outbox.sqlite.doorbell import anybody_listens


@dataclass(frozen=True, slots=True)
class Log:
    """The operations on a log from outside a relay."""

    inspection: Inspection
    endpoints: Endpoints
    control: Control
    purge: Purge
    browsing: Browsing


def log_file(url: str) -> Path:
    """The file that holds, or will hold, the log of this ``outbox.url``."""
    return Path(sa.make_url(url).database or "").absolute()


def attended(url: str) -> bool:
    """Whether a dispatcher on this machine sends the log of this ``outbox.url``.

    It is detected by the doorbell that it listens to: a dispatcher of another user is not seen, nor one with its own
    directory for temporary files, as in another container. Raises ``OutboxError`` if that directory cannot be used.
    """
    return anybody_listens(log_file(url))


@asynccontextmanager
async def open_log(url: str, clock: Clock) -> AsyncIterator[Log]:
    """Open the log of this ``outbox.url``, and update its tables. Raises ``OutboxError`` if it cannot be used.

    A missing log is created: a caller that only wants to look checks for its file first.
    """
    database = await asyncio.to_thread(SQLite, str(log_file(url)))
    try:
        commit, reader = GroupCommit(database, clock), Reader(database)
        try:
            yield Log(
                Inspection(reader, clock),
                Endpoints(commit, database, clock),
                Control(commit, reader, clock),
                Purge(commit, reader, database, clock),
                Browsing(reader),
            )
        finally:
            await commit.aclose()
            await reader.aclose()
    finally:
        database.close()
