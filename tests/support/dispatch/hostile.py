"""Raw socket receivers that misbehave at any stage; and a POST to one of them."""

import asyncio
import functools
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx

from relay.dispatch.http.outcome import Outcome
from relay.dispatch.http.transport import HttpTransport, open_transport
from tests.support.builders import endpoint

HEADERS = [(b"content-type", b"application/json"), (b"accept-encoding", b"identity"), (b"webhook-id", b"evt_1")]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def posting(url: str = "http://127.0.0.1/", **settings: Any) -> AsyncIterator[HttpTransport]:
    """The transport of an endpoint with these keys of config.yaml."""
    transport = open_transport(endpoint("hostile", url=url, **settings))
    try:
        yield transport
    finally:
        await transport.aclose()


async def post(url: str, *, body: bytes = b"{}", deadline: float = 5, **settings: Any) -> Outcome:
    """One POST on its own transport."""
    hostile = endpoint("hostile", url=url, **settings)
    transport = open_transport(hostile)
    try:
        return await transport.post(httpx.URL(str(hostile.url)), HEADERS, body, deadline)
    finally:
        await transport.aclose()


@asynccontextmanager
async def serving(
    behave: Behave, *, read_request: bool = True, listen_on: str = "127.0.0.1", **listen: Any
) -> AsyncIterator[str]:
    """A server that reads the request, if asked to, and hands the rest to ``behave``."""

    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            if read_request:
                await read(reader)
            await behave(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, listen_on, 0, **listen)
    scheme, host = ("https", "localhost") if "ssl" in listen else ("http", "127.0.0.1")
    try:
        yield f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()  # it may wait for a client that reads no more
        await asyncio.sleep(0)


async def read(reader: asyncio.StreamReader) -> bytes:
    """The body of one request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.split(b":")[1]))


def writes(*pieces: bytes, hang: bool = False) -> Behave:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if hang:
            await reader.read()

    return behave


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a reset instead of a FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


_watching: list[list[Any]] = []


@functools.cache
def _watch() -> None:
    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            for dialled in _watching:
                dialled.append(arguments[1])

    sys.addaudithook(heard)  # for the life of the process: an audit hook cannot be removed


@contextmanager
def dials() -> Iterator[list[Any]]:
    """Every address that this process connects to meanwhile, as the interpreter itself reports it."""
    _watch()
    dialled: list[Any] = []
    _watching.append(dialled)
    try:
        yield dialled
    finally:
        _watching.remove(dialled)
