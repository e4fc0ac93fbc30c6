"""PostgreSQL crashes and comes back while producers append and a dispatcher sends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.dispatch.dispatcher import Dispatcher
from relay.dispatch.http.transport import open_transport
from relay.errors import OutboxError
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from tests.support.builders import durable, new_stream, stream_id
from tests.support.dispatch.receiver import Receiver
from tests.support.outbox.outbox_store import Store, claim, one_stream, postgres, until, whole
from tests.support.outbox.postgres import PostgresServer

CLOCK = SystemClock()


@pytest.fixture
async def store(postgres_server: PostgresServer) -> AsyncIterator[Store]:
    async with postgres(postgres_server) as opened:
        yield opened


STREAMS, CRASHES = 6, 3


class Producer:
    """Appends to streams, event by event, until it is stopped."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._stopping = False
        self._appended = asyncio.Condition()
        self.acknowledged: dict[str, int] = {}

    async def run(self, number: int) -> StreamLog:
        log = await self._outbox.open_stream(new_stream(number))
        self.acknowledged[log.id] = 0
        while not self._stopping:
            await log.append([durable(number, log.last_sequence + 1)])
            self.acknowledged[log.id] = log.last_sequence
            async with self._appended:
                self._appended.notify_all()
        return log

    def stop(self) -> None:
        self._stopping = True

    async def go_on(self) -> None:
        """Wait until every stream has got a few events more."""
        before = dict(self.acknowledged)
        async with asyncio.timeout(60), self._appended:
            await self._appended.wait_for(
                lambda: all(self.acknowledged[stream] >= last + 3 for stream, last in before.items())
            )


@asynccontextmanager
async def delivering(url: str, receiver: Receiver) -> AsyncIterator[Outbox]:
    """A log with a dispatcher, which sends to ``crm`` alone."""
    outbox = await Outbox.open(url, name="relay", clock=CLOCK)
    target = Endpoint.model_validate({"name": "crm", "url": receiver.url, "signing": "none", "events": ["*"]})
    dispatcher = Dispatcher(outbox.lanes, [target], clock=CLOCK, open_transport=open_transport)
    await outbox.lanes.sync_endpoints(["crm"])
    doorbell = outbox.listen(dispatcher.ring)
    sending = asyncio.create_task(dispatcher.run())
    try:
        yield outbox
        await dispatcher.stop(30)
        await sending
    finally:
        doorbell.close()
        await outbox.aclose()


async def lose_nothing(
    outbox: Outbox, receiver: Receiver, url: str, disturb: Callable[[], None], times: int = 1
) -> None:
    """Append to several streams while the server is disturbed: what was acknowledged is kept, and sent in order."""
    async with aclosing(await Outbox.open(url, name="producer", clock=CLOCK)) as writer:
        producer = Producer(writer)
        appending = [asyncio.create_task(producer.run(number)) for number in range(1, STREAMS + 1)]
        await until(lambda: len(producer.acknowledged) == STREAMS or any(task.done() for task in appending))
        for _ in range(times):
            await producer.go_on()
            await asyncio.to_thread(disturb)
        await producer.go_on()
        producer.stop()
        logs = await asyncio.gather(*appending)
        await receiver.wait_for(lambda: sent(receiver) == producer.acknowledged)
        for log in logs:
            await whole(outbox, log)


async def test_a_crash_of_the_server_loses_and_reorders_nothing_acknowledged(
    durable_server: PostgresServer, receiver: Receiver
) -> None:
    url = durable_server.url(durable_server.create())

    def crash() -> None:
        durable_server.stop()
        durable_server.start()

    async with delivering(url, receiver) as outbox:
        await lose_nothing(outbox, receiver, url, crash, CRASHES)


def sent(receiver: Receiver) -> dict[str, int]:
    """The last event of each stream. A stream's events may come twice, and never out of order."""
    last: dict[str, int] = {}
    for request in receiver.requests:
        stream = request.json()["stream"]
        assert last.get(stream["id"], 0) <= stream["sequence"] <= last.get(stream["id"], 0) + 1
        last[stream["id"]] = stream["sequence"]
    return last


async def test_what_is_appended_while_the_server_is_down_is_held_for_a_time_and_no_longer(
    durable_server: PostgresServer,
) -> None:
    url = durable_server.url(durable_server.create())
    outbox = await Outbox.open(url, name="producer", clock=CLOCK, retry_s=0.5)
    log = await outbox.open_stream(new_stream())
    durable_server.stop()
    try:
        with pytest.raises(OutboxError, match=r"outbox postgresql:\S+: .* start the server"):
            await log.append([durable(1, 1)])
    finally:
        durable_server.start()
    assert log.last_sequence == 0
    async with asyncio.timeout(30):
        while True:
            try:
                await log.append([durable(1, 1)])
                break
            except OutboxError:  # it is starting
                continue
    assert [one.sequence for one in await outbox.history(stream_id(1))] == [1]
    await outbox.aclose()


async def test_no_session_stays_with_a_server_that_takes_no_writes(
    postgres_server: PostgresServer, store: Store
) -> None:
    """After a failover, the address may lead to the former primary for a while."""
    outbox = await one_stream(store)
    database = store.url.partition("?")[0].rpartition("/")[2]
    store.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    store.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    said = ""
    while "the server is read-only, as a standby is: name the primary" not in said:
        with pytest.raises(OutboxError) as refused:
            await claim(outbox.lanes)
        said = str(refused.value)
    with pytest.raises(OutboxError, match="read-only"):
        await store.open()
    postgres_server.execute(f"ALTER DATABASE {database} RESET ALL")
    assert len(await claim(outbox.lanes)) == 1
