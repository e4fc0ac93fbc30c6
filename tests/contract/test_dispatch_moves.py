"""A name that moves to another address is followed, though connections to the former one are kept busy."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from relay.dispatch.http.outcome import Delivered
from relay.dispatch.http.resolver import Resolver
from relay.dispatch.http.transport import HttpTransport, open_connections
from tests.support.builders import endpoint
from tests.support.dispatch.hostile import HEADERS, OK, dials, read, serving


class Name:
    """A name with one address, which may change."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = 0

    def __call__(self, host: str, port: int, *_: Any) -> Sequence[tuple[Any, ...]]:
        self.asked += 1
        return [(2, 1, 6, "", (self.address, port))]


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read(reader)
        writer.write(OK)


def opened(port: int | None, name: Name, age: str) -> tuple[httpx.URL, HttpTransport]:
    crm = endpoint(url=f"http://moves.example:{port}/", max_connection_age=age)
    return httpx.URL(str(crm.url)), HttpTransport(open_connections(crm, Resolver(name)))


async def test_a_busy_connection_follows_its_name_without_a_failed_attempt() -> None:
    """Both addresses take events all the time: nothing but its age ends the kept connection."""
    name = Name("127.0.0.1")
    async with serving(answers, read_request=False, listen_on="0.0.0.0") as at:
        port = httpx.URL(at).port
        url, transport = opened(port, name, "200ms")
        with dials() as dialled:
            assert isinstance(await transport.post(url, HEADERS, b"{}", 5), Delivered)
            name.address = "127.0.0.2"
            async with asyncio.timeout(30):
                while ("127.0.0.2", port) not in dialled:
                    assert isinstance(await transport.post(url, HEADERS, b"{}", 5), Delivered)
        await transport.aclose()
    assert dialled[0] == ("127.0.0.1", port)


async def test_a_connection_is_kept_for_its_age() -> None:
    name = Name("127.0.0.1")
    async with serving(answers, read_request=False) as at:
        url, transport = opened(httpx.URL(at).port, name, "1h")
        with dials() as dialled:
            for _ in range(100):
                assert isinstance(await transport.post(url, HEADERS, b"{}", 5), Delivered)
        await transport.aclose()
    assert (len(dialled), name.asked) == (1, 1)


def test_an_address_and_its_connection_live_for_60_s_together_unless_told_otherwise() -> None:
    assert endpoint().max_connection_age.total_seconds() == 60
