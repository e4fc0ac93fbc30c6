"""However much an endpoint answers, little of it is kept."""

import asyncio
import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from relay.dispatch.http.bounded_connection import BODY_LIMIT
from relay.dispatch.http.outcome import Delivered, Failed
from tests.support.dispatch.hostile import HEADERS, post, posting, read, serving


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """Tells how much the objects made meanwhile have taken at most, in bytes, the server's among them."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "headers", [b"x: " + b"a" * 5_000_000 + b"\r\n", b"x: y\r\n" * 1_000_000], ids=["5 MB in one", "a million"]
)
async def test_headers_without_measure_are_a_failure_and_are_not_kept(headers: bytes) -> None:
    """All else about the answer is as it should be."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for start in range(0, len(headers), 65536):
            writer.write(headers[start : start + 65536])
            await writer.drain()
        writer.write(b"content-length: 2\r\n\r\nok")

    async with serving(behave) as url:
        with memory() as most:
            outcome = await post(url)
            assert most() < 1_000_000
    assert isinstance(outcome, Failed)
    assert outcome.stage == "headers"


@pytest.mark.parametrize("body", [gzip.compress(bytes(15_000_000)), b"of course"], ids=["a bomb", "no gzip at all"])
async def test_an_answer_that_says_it_is_packed_is_read_as_it_is(body: bytes) -> None:
    """So it is short, and its connection is kept; unpacked it would be 15 MB, or an error."""
    connections = 0

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body))
            writer.write(body)

    assert len(body) < BODY_LIMIT
    async with serving(behave, read_request=False) as url, posting() as transport:
        with memory() as most:
            for _ in range(2):
                assert isinstance(await transport.post(httpx.URL(url), HEADERS, b"{}", 5), Delivered)
            assert most() < 1_000_000
    assert connections == 1


async def test_an_endless_body_is_left_after_16_kib() -> None:
    sent = 0

    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with serving(endless) as url:
        assert isinstance(await post(url), Delivered)
    assert sent < 20_000_000
