"""What strangers do to the HTTP port is not felt by delivery."""

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import aiohttp
import psutil
import pytest
from fastapi import APIRouter, Response

from relay.api.guard import foreign_host
from relay.api.server import MOST_CONNECTIONS, REQUEST_S, HttpServer
from relay.config.api import ListenAddress
from relay.telemetry.metrics import Gauge, Metrics
from tests.support.cli import environment
from tests.support.dispatch.receiver import Receiver

LIMIT = 256
HALF_OPEN = 400


async def test_half_open_connections_stop_neither_delivery_nor_a_health_check(
    receiver: Receiver, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.dispatch.http_beside_delivery",
        f"sqlite:///{tmp_path}/relay.db", receiver.url, str(LIMIT),
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    strangers: list[asyncio.StreamWriter] = []
    try:
        port = int(await process.stdout.readline())
        for _ in range(HALF_OPEN):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            strangers.append(writer)
        for count in range(1, 6):
            process.stdin.write(b"\n")
            await receiver.wait(count)
        assert await _status(f"http://127.0.0.1:{port}/healthz") == 200, (
            "health must answer beside half-open connections"
        )
        async with asyncio.timeout(30):
            while _sockets_of_port(process.pid, port) > MOST_CONNECTIONS:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.05)
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        for writer in strangers:
            writer.close()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _status(url: str, **headers: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status


def _sockets_of_port(pid: int, port: int) -> int:
    return sum(each.laddr.port == port and bool(each.raddr) for each in psutil.Process(pid).net_connections())


@contextlib.asynccontextmanager
async def running(
    *, hosts: tuple[str, ...] = (), request_s: float = REQUEST_S, routers: Collection[APIRouter] = ()
) -> AsyncIterator[HttpServer]:
    at = ListenAddress("api.listen", "127.0.0.1:0", hosts, api=False)
    server = HttpServer(at, {}, Metrics([Gauge("rooms_heard", "Rooms.", lambda: 1)]), routers, request_s=request_s)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\n", b"POST /metrics HTTP/1.1\r\n"
    b"Content-Length: 1000000\r\n\r\nx"])  # fmt: skip
async def test_a_request_that_never_ends_is_closed(sent: bytes) -> None:
    async with running(request_s=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)
        writer.close()


async def test_a_reader_that_does_not_read_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.api.server.ANSWER_S", 0.5)
    routes, asked = APIRouter(), asyncio.Event()

    @routes.get("/much")
    async def much() -> Response:
        asked.set()
        return Response(bytes(64 << 20))  # more than any socket holds

    async with running(routers=[routes]) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as reader:
            reader.sendall(b"GET /much HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            async with asyncio.timeout(30):
                await asked.wait()
                while _sockets_of_port(os.getpid(), server.port):  # noqa: ASYNC110 - nobody announces it
                    await asyncio.sleep(0.05)


async def test_the_newest_connection_is_answered_and_the_oldest_is_closed() -> None:
    async with running() as server:
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MOST_CONNECTIONS + 1)]
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(opened[0][0].read(), 4) == b"", (
                "the oldest connection must be closed for a new one"
            )
        reader, writer = opened[-1]
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), 4), "the newest connection must be answered"
        for _, each in opened:
            each.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8790", 200),
        ("[::1]:8790", 200),
        ("localhost", 200),
        ("relay:8790", 200),
        ("relay.default.svc.cluster.local", 200),
        ("relay.default.svc", 200),
        ("Relay.Example.com.:443", 200),
        ("evil.example.org", 421),
        ("127.0.0.1.evil.example.org:8790", 421),
        ("localhost.evil.example.org", 421),
    ],
)
async def test_a_web_page_cannot_read_the_http_port_under_its_own_name(host: str, status: int) -> None:
    async with running(hosts=("relay.example.com",)) as server:
        for page in ("healthz", "metrics"):
            assert await _status(f"http://127.0.0.1:{server.port}/{page}", Host=host) == status


def test_a_probe_without_a_host_header_is_answered() -> None:
    assert not foreign_host(None, ())


async def test_what_is_not_served_is_said() -> None:
    async with running() as server, aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{server.port}"
        assert await _status(f"{base}/") == 404
        async with session.post(f"{base}/healthz") as refused, session.head(f"{base}/healthz") as head:
            assert (refused.status, refused.headers["Allow"], head.status) == (405, "GET, HEAD", 200)


def test_the_soft_limit_on_open_files_is_raised_at_start() -> None:
    script = (
        "import resource\n"
        "from relay.cli.commands.run import raise_open_files_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, 512))\n"
        "raise_open_files_limit()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True, cwd=os.curdir
    )
    assert done.stdout.split() == ["512", "512"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > HALF_OPEN, "this test itself opens that many"
