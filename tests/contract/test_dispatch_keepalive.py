"""A kept connection that dies just when it is used again says nothing about the endpoint, and not held against it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from relay.dispatch.http import aiohttp_transport
from relay.dispatch.http.aiohttp_transport import AiohttpTransport
from relay.dispatch.http.bounded_connection import BoundedConnection
from relay.dispatch.http.outcome import Delivered, Failed
from relay.dispatch.http.transport import HttpTransport
from tests.support.dispatch.hostile import HEADERS, OK, posting, read, reset, serving


class Receiver:
    """Answers the first request of each connection; ``second`` is what it does with the next one, once it is read."""

    def __init__(self, *, second: bytes = b"", resets: bool = False, always: bool = False) -> None:
        self._second, self._resets, self._always = second, resets, always
        self.connections = 0
        self.bodies: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self._always or self.connections == 1:
            self.bodies.append(await read(reader))
            writer.write(OK)
            await writer.drain()
        self.bodies.append(await read(reader))
        if self._resets:
            reset(writer)
        writer.write(self._second)


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    async with posting() as transport:
        yield transport


async def post(transport: HttpTransport, url: str, body: bytes) -> Delivered | Failed:
    outcome = await transport.post(httpx.URL(url), HEADERS, body, 5)
    assert isinstance(outcome, Delivered | Failed)
    return outcome


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
async def test_one_that_dies_as_it_is_used_again_is_replaced_once(transport: HttpTransport, resets: bool) -> None:
    receiver = Receiver(resets=resets)
    async with serving(receiver, read_request=False) as url:
        assert isinstance(await post(transport, url, b"first"), Delivered)
        assert isinstance(await post(transport, url, b"second"), Delivered)
    assert receiver.bodies == [b"first", b"second", b"second"]
    assert receiver.connections == 2


async def test_a_receiver_that_closes_the_new_one_too_has_failed(transport: HttpTransport) -> None:
    """Once, not as often as there are connections: it may have read the event each time."""
    receiver = Receiver(always=True)
    async with serving(receiver, read_request=False) as url:
        assert isinstance(await post(transport, url, b"first"), Delivered)
        outcome = await post(transport, url, b"second")
    assert isinstance(outcome, Failed)
    assert outcome.stage == "headers"
    assert receiver.bodies == [b"first", b"second", b"second"]


async def test_the_replacement_is_a_new_connection_though_others_are_kept(transport: HttpTransport) -> None:
    """After a receiver's restart all that are kept are dead, not only the one that was tried."""
    together = asyncio.Barrier(3)
    connections = 0

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read(reader)
        if connections <= 3:
            await together.wait()
        writer.write(OK)
        await read(reader)  # and leave without a word

    async with serving(behave, read_request=False) as url:
        for outcome in await asyncio.gather(*(post(transport, url, b"first") for _ in range(3))):
            assert isinstance(outcome, Delivered)
        assert isinstance(await post(transport, url, b"second"), Delivered)
    assert connections == 4


async def test_a_first_request_is_never_sent_twice(transport: HttpTransport) -> None:
    bodies: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await read(reader))

    async with serving(behave, read_request=False) as url:
        outcome = await post(transport, url, b"only")
    assert isinstance(outcome, Failed)
    assert (outcome.stage, bodies) == ("headers", [b"only"])


async def test_an_answer_that_had_begun_is_a_failure_on_a_kept_connection_too(transport: HttpTransport) -> None:
    receiver = Receiver(second=b"HTTP/1.1 20")
    async with serving(receiver, read_request=False) as url:
        assert isinstance(await post(transport, url, b"first"), Delivered)
        outcome = await post(transport, url, b"second")
    assert isinstance(outcome, Failed)
    assert (outcome.stage, receiver.bodies) == ("headers", [b"first", b"second"])


@pytest.mark.parametrize(
    ("stray", "connections"),
    [
        pytest.param(OK, 3, id="another answer"),
        pytest.param(b"null", 3, id="the rest of one"),
        pytest.param(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n", 2, id="the end of an idle one"),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
async def test_after_bytes_that_belong_to_no_answer_no_connection_is_used_twice(
    transport: HttpTransport, stray: bytes, connections: int, late: bool
) -> None:
    """The next ones might come while a request waits, and be taken for its answer."""
    came = 0
    idle, gone = asyncio.Event(), asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        if came > 1:
            while True:
                await read(reader)
                writer.write(OK)
        await read(reader)
        writer.write(OK if late else OK + stray)
        if late:
            await idle.wait()
            writer.write(stray)
        await reader.read()
        gone.set()

    async with serving(behave, read_request=False) as url, asyncio.timeout(30):
        assert isinstance(await post(transport, url, b"first"), Delivered)
        idle.set()
        await gone.wait()
        for body in (b"second", b"third"):
            assert isinstance(await post(transport, url, body), Delivered)
    assert came == (connections if late else 3)


async def test_a_connection_that_was_closed_meanwhile_is_not_used(transport: HttpTransport) -> None:
    gone = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        writer.write(OK)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        gone.set()

    async with serving(behave, read_request=False) as url:
        for _ in range(3):
            assert isinstance(await post(transport, url, b"x"), Delivered)
            await gone.wait()
            gone.clear()


async def test_http_1_0_works_a_connection_for_each_request(transport: HttpTransport) -> None:
    connections = 0

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nas long as it lasts")

    async with serving(behave, read_request=False) as url:
        for _ in range(3):
            assert isinstance(await post(transport, url, b"x"), Delivered)
    assert connections == 3


async def test_a_connection_without_requests_is_closed(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp_transport, "IDLE_S", 0.05)
    closed = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        writer.write(OK)
        await reader.read()
        closed.set()

    async with serving(behave, read_request=False) as url, asyncio.timeout(30):
        assert isinstance(await post(transport, url, b"x"), Delivered)
        await closed.wait()


async def test_a_new_connection_that_is_gone_at_once_is_given_up(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, made = AiohttpTransport._connect, list[BoundedConnection]()

    async def gone(self: AiohttpTransport, target: Any) -> BoundedConnection:
        made.append(await connect(self, target))
        assert made[0].transport is not None
        made[0].transport.abort()
        return made[0]

    monkeypatch.setattr(AiohttpTransport, "_connect", gone)
    async with serving(Receiver(), read_request=False) as url:
        assert isinstance(await post(transport, url, b"x"), Failed)
    assert made[0].pooled is None


async def test_each_request_on_a_connection_has_its_own_deadline(transport: HttpTransport) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        writer.write(OK)
        await read(reader)
        await asyncio.sleep(1.5)
        writer.write(OK)
        await reader.read()

    async with serving(behave, read_request=False) as url:
        await transport.post(httpx.URL(url), HEADERS, b"over at once", 1)
        assert isinstance(await transport.post(httpx.URL(url), HEADERS, b"late", 30), Delivered)
        assert isinstance(await transport.post(httpx.URL(url), HEADERS, b"hangs", 0.1), Failed)
