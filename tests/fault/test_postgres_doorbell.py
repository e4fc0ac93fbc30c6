"""Rings in PostgreSQL: any user of the database can send them, and the session that hears them may be lost."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from relay.clock import SystemClock
from relay.outbox.outbox import Outbox
from relay.outbox.postgres.doorbell import CHANNEL
from relay.outbox.records import Growth
from tests.support.builders import durable, new_stream
from tests.support.outbox.postgres import PostgresServer

FORGED = [
    "",
    "no JSON",
    "7",
    "{}",
    "[[1]]",
    "[true]",
    '["1"]',
    "[1e400]",
    "[1.5]",
    "[-1]",
    "[0]",
    "[9223372036854775808]",
    "[" * 7000,
    json.dumps([1] * 351, separators=(",", ":")),
]


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.drop(name)


class Rung:
    """Collects which streams have grown."""

    def __init__(self) -> None:
        self.streams: set[int] = set()
        self.came = asyncio.Event()

    def __call__(self, growth: Growth) -> None:
        self.streams |= growth.keys()
        self.came.set()


async def test_a_forged_ring_announces_nothing_and_the_next_true_one_is_heard(database: str) -> None:
    outbox, rung = await Outbox.open(database, name="relay", clock=SystemClock()), Rung()
    bell = outbox.listen(rung)
    with psycopg.connect(database, autocommit=True) as neighbour:
        for message in FORGED:
            neighbour.execute("SELECT pg_notify(%s, %s)", (CHANNEL, message))
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1)])
    async with asyncio.timeout(30):
        await rung.came.wait()
    assert rung.streams == {1}, "only the stream that has grown"
    bell.close()
    await outbox.aclose()


async def test_a_lost_session_leaves_its_descriptor_to_the_next_socket(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, loop, watched = (
        await Outbox.open(database, name="relay", clock=SystemClock()),
        asyncio.get_running_loop(),
        list[int](),
    )
    unwatched = asyncio.Event()
    add, remove = loop.add_reader, loop.remove_reader

    def adding(descriptor: int, *rest: Any) -> None:
        watched.append(descriptor)
        add(descriptor, *rest)

    def removing(descriptor: int) -> bool:
        if descriptor in watched:
            unwatched.set()
        return remove(descriptor)

    monkeypatch.setattr(loop, "add_reader", adding)
    monkeypatch.setattr(loop, "remove_reader", removing)
    bell = outbox.listen(Rung())
    with psycopg.connect(database, autocommit=True) as operator:
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    async with asyncio.timeout(30):
        await unwatched.wait()
    ours, other = socket.socketpair()
    heard = asyncio.Event()
    if ours.fileno() != watched[0]:
        with ours as elsewhere:
            ours = socket.socket(fileno=os.dup2(elsewhere.fileno(), watched[0]))
    with ours, other:
        add(watched[0], heard.set)
        bell.close()
        other.send(b"!")
        async with asyncio.timeout(30):
            await heard.wait()
        remove(watched[0])
    await outbox.aclose()
