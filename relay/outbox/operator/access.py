"""The operator's way to the log, beside whatever relay runs on it."""

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
from relay.outbox.operator.inspection import Inspection
from relay.outbox.operator.purge import Purge
from relay.outbox.operator.redelivery import Control
from relay.outbox.sqlite.database import SQLite
from relay.outbox.sqlite.doorbell import anybody_listens


@dataclass(frozen=True, slots=True)
class Log:
    """What can be done with a log from the outside."""

    inspection: Inspection
    endpoints: Endpoints
    control: Control
    purge: Purge


def log_file(url: str) -> Path:
    """The file that the log of this ``outbox.url`` is in, or will be."""
    return Path(sa.make_url(url).database or "").absolute()


def attended(url: str) -> bool:
    """Whether a dispatcher runs on this machine that sends what the log of this ``outbox.url`` holds.

    One is known by the doorbell that it listens to: another user's is not seen, nor one that has a directory for
    temporary files of its own, as in another container. Raises ``OutboxError`` where that directory cannot be used.
    """
    return anybody_listens(log_file(url))


@asynccontextmanager
async def open_log(url: str, clock: Clock) -> AsyncIterator[Log]:
    """The log of this ``outbox.url``, its tables brought up to date. Raises ``OutboxError`` when it cannot be used.

    Where there is none it is made: whoever only wants to look asks for its file first.
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
            )
        finally:
            await commit.aclose()
            await reader.aclose()
    finally:
        database.close()
