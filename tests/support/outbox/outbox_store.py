"""Stores to test the outbox's contract against, and a manual clock."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from relay.dispatch.store import LaneStore
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.opening import open_database
from relay.outbox.outbox import Outbox
from relay.outbox.records import Lane, Parking, Settlement
from tests.support.builders import EPOCH_MS, new_stream, run
from tests.support.outbox.postgres import PostgresServer

LEASE_MS = 45_000


async def until(condition: Callable[[], bool]) -> None:
    """Yield to the loop until an unannounced condition holds; thirty seconds at most."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


class HandClock:
    """Stands still until it is moved; ``set_by`` is how far the wall clock was set away from the elapsed time."""

    def __init__(self, at: int = EPOCH_MS) -> None:
        self.at = at
        self.set_by = 0

    def now_ms(self) -> int:
        return self.at + self.set_by

    def steady_ms(self) -> int:
        return self.at


class Store:
    """One database, and every outbox that a test has opened on it."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.clock = HandClock()
        self._stack = stack

    def engine(self) -> sa.Engine:
        """A way into the database behind the outbox's back."""
        driver = "+psycopg" if self.kind == "postgresql" else ""
        return sa.create_engine(sa.make_url(self.url).set(drivername=self.kind + driver), poolclass=sa.NullPool)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Execute it there, and return its rows."""
        with self.engine().begin() as connection:
            result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []

    @property
    def kind(self) -> str:
        return self.url.partition(":")[0]

    async def open(
        self,
        name: str = "relay",
        *,
        sole: bool = False,
        lease_ms: int = 6_000,
        retry_s: float = 10.0,
        or_newer: bool = False,
    ) -> Outbox:
        outbox = await Outbox.open(
            self.url,
            name=name,
            clock=self.clock,
            sole=sole,
            lease_ms=lease_ms,
            retry_s=retry_s,
            or_newer=or_newer,
        )
        self._stack.push_async_callback(outbox.aclose)
        return outbox


@cache
def _migrated_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "relay.db"
        open_database(f"sqlite:///{path}").close()
        return path.read_bytes()


def write_migrated(directory: Path) -> None:
    """Put an empty log there whose tables are up to date: to create them takes ten times as long as to copy them."""
    (directory / "relay.db").write_bytes(_migrated_file())


@asynccontextmanager
async def sqlite(directory: Path, *, migrated: bool = False) -> AsyncIterator[Store]:
    """A store in this directory. ``migrated``: its tables are there already."""
    if migrated:
        write_migrated(directory)
    doorbells = tempfile.mkdtemp(prefix="bell")  # short: pytest's own directories are too long for a socket
    before, tempfile.tempdir = tempfile.tempdir, doorbells
    try:
        async with AsyncExitStack() as stack:
            yield Store(f"sqlite:///{directory}/relay.db", stack)
    finally:
        tempfile.tempdir = before
        shutil.rmtree(doorbells)


@asynccontextmanager
async def postgres(server: PostgresServer, *, template: str | None = None) -> AsyncIterator[Store]:
    name = server.create(template=template or migrated(server))
    try:
        async with AsyncExitStack() as stack:
            yield Store(server.url(name), stack)
    finally:
        server.drop(name)


def migrated(server: PostgresServer) -> str:
    """A template whose tables are up to date: to create them takes ten times as long as to copy them."""
    if server.migrated is None:
        server.migrated = server.create()
        open_database(server.url(server.migrated)).close()
    return server.migrated


STORES = ("sqlite", "postgres")
"""The stores that fulfil the contract. A database that is listed here is tested against all of it."""


async def one_stream(store: Store, *endpoints: str, events: int = 3) -> Outbox:
    """An outbox with these endpoints and one stream of this many events."""
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(endpoints or ("crm",))
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, events))
    return outbox


async def claim(store: LaneStore, *endpoints: str, most: int = 10) -> list[Lane]:
    return await store.claim(dict.fromkeys(endpoints or ("crm",), most), lease_ms=LEASE_MS)


async def the_lane(store: LaneStore, endpoint: str = "crm") -> Lane:
    (lane,) = await claim(store, endpoint)
    return lane


def settled(lane: Lane, cursor: int) -> Settlement:
    return Settlement(lane.id, lane.fence, cursor, cursor, 0)


def parking(lane: Lane, *, retry_at: int = EPOCH_MS + 300_000) -> Settlement:
    """The settlement that parks the lane's head after its third attempt."""
    head = lane.cursor + 1
    aside = Parking(head, attempts=3, reason="status 500", previous=lane.last_sent, retry_at=retry_at)
    return Settlement(lane.id, lane.fence, head, head, 0, parked=aside)


async def rows(outbox: Outbox, table: sa.Table) -> list[tuple[object, ...]]:
    return await outbox._reader.query(
        lambda connection: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
    )


async def whole(outbox: Outbox, log: StreamLog) -> None:
    """Every acknowledged event is there, once, and no other."""
    sequences = [one.sequence for one in await outbox.history(log.id, limit=100_000)]
    assert sequences == list(range(1, log.last_sequence + 1))
