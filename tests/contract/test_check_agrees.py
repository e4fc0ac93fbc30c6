"""``check`` says of an endpoint what a delivery to it comes to: both connect by the same code."""

import asyncio
import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.cli.probes import probe_endpoint
from relay.dispatch.http.outcome import Delivered, Failed
from relay.dispatch.http.resolver import Resolver
from relay.dispatch.http.transport import HttpTransport, open_connections
from tests.support.builders import endpoint
from tests.support.dispatch.certificates import Authority, server_context
from tests.support.dispatch.hostile import HEADERS, OK, read, serving


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read(reader)
    writer.write(OK)


def names(*addresses: str) -> Resolver:
    def lookup(host: str, port: int, *_: Any) -> Sequence[tuple[Any, ...]]:
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in each], socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    return Resolver(lookup)


async def check_and_deliver(resolver: Resolver, url: str, **settings: Any) -> tuple[str, str]:
    """What ``check`` finds, and the stage that a delivery ends at, or ``delivered``."""
    crm = endpoint(url=url, **settings)
    finding = await probe_endpoint(crm, resolver)
    transport = HttpTransport(open_connections(crm, resolver))
    outcome = await transport.post(httpx.URL(str(crm.url)), HEADERS, b"{}", 30)
    await transport.aclose()
    assert isinstance(outcome, Delivered | Failed)
    return finding.status, outcome.stage if isinstance(outcome, Failed) else "delivered"


@contextmanager
def blackholed(address: str, port: int) -> Iterator[None]:
    """A port whose queue of connections is full: what is sent to it gets no answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as full:
        full.bind((address, port))
        full.listen(0)
        waiting = [socket.socket(family) for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            assert each.connect_ex(full.getsockname()) in (0, errno.EINPROGRESS)
        yield
        for each in waiting:
            each.close()


async def test_a_host_with_a_trailing_dot() -> None:
    async with serving(answers, read_request=False) as at:
        url = f"http://hook.test.:{httpx.URL(at).port}/"
        assert await check_and_deliver(names("127.0.0.1"), url) == ("ok", "delivered")


async def test_a_host_with_a_trailing_dot_over_tls(tmp_path: Path) -> None:
    """The certificate names the host without it."""
    authority = Authority(tmp_path)
    pair = authority.sign("server", host="hook.test")
    async with serving(answers, read_request=False, ssl=server_context(pair)) as at:
        url, tls = f"https://hook.test.:{httpx.URL(at).port}/", {"ca": authority.cert}
        assert await check_and_deliver(names("127.0.0.1"), url, tls=tls) == ("ok", "delivered")
        assert await check_and_deliver(names("127.0.0.1"), url) == ("failed", "tls")


@pytest.mark.parametrize("lost", ["::1", "127.0.0.2"], ids=["IPv6", "IPv4"])
async def test_a_host_whose_first_address_answers_nothing(lost: str) -> None:
    """The next address is tried soon, long before the connect timeout."""
    async with serving(answers, read_request=False) as at:
        port = httpx.URL(at).port
        assert port is not None
        with blackholed(lost, port):
            url = f"http://hook.test:{port}/"
            assert await check_and_deliver(names(lost, "127.0.0.1"), url, connect_timeout="20s") == ("ok", "delivered")


async def test_a_host_of_which_no_address_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    with blackholed("127.0.0.2", port):
        url = f"http://hook.test:{port}/"
        assert await check_and_deliver(names("127.0.0.2"), url, connect_timeout="300ms") == ("failed", "connect")


async def test_an_address_that_is_refused() -> None:
    assert await check_and_deliver(names("169.254.169.254"), "http://hook.test/") == ("failed", "egress")
