"""Alive and ready are different questions."""

import asyncio
import socket
from functools import partial

import aiohttp
import pytest

from relay.api.server import HttpServer
from relay.config.api import ListenAddress
from relay.errors import ConfigError
from relay.telemetry.metrics import Gauge, Metrics


def at(address: str) -> ListenAddress:
    return ListenAddress("api.listen", address, (), api=False)


ANY = at("127.0.0.1:0")


async def ask(server: HttpServer, path: str) -> tuple[int, object]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}{path}") as response:
        return response.status, await response.json()


async def test_ready_only_when_every_part_is() -> None:
    reasons: dict[str, str | None] = {"worker": "not registered with LiveKit", "outbox": None}
    server = HttpServer(ANY, {name: partial(reasons.get, name) for name in reasons})
    await server.start()
    try:
        assert await ask(server, "/healthz") == (200, {"status": "ok"})
        assert await ask(server, "/readyz") == (503, {"ready": False, "checks": reasons})
        reasons["worker"] = None
        assert await ask(server, "/readyz") == (200, {"ready": True, "checks": {"worker": None, "outbox": None}})
    finally:
        await server.stop()


async def test_metrics_are_read_when_they_are_asked_for() -> None:
    rooms = [3]
    gauge = Gauge("rooms_heard", "Rooms with an agent.", lambda: rooms[0])
    server = HttpServer(ANY, {}, Metrics([gauge, Gauge("worker_registered", "1 while it is.", lambda: True)]))
    await server.start()
    try:
        rooms[0] = 4
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{server.port}/metrics") as response,
        ):
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert await response.text() == (
                "# HELP speech_relay_rooms_heard Rooms with an agent.\n"
                "# TYPE speech_relay_rooms_heard gauge\n"
                "speech_relay_rooms_heard 4.0\n"
                "# HELP speech_relay_worker_registered 1 while it is.\n"
                "# TYPE speech_relay_worker_registered gauge\n"
                "speech_relay_worker_registered 1.0\n"
            )
    finally:
        await server.stop()


async def test_an_address_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = (
            rf"^api\.listen: 127\.0\.0\.1:{port} cannot be listened on \(.+\); "
            "choose another address, or null for none, "
            "or for a second process on this machine set SPEECH_RELAY__API__LISTEN$"
        )
        with pytest.raises(ConfigError, match=said):
            await HttpServer(at(f"127.0.0.1:{port}"), {}).start()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nAuthorization: Bearer s3cret\0\r\nHost: a\r\n\r\n",
        b"GET http://[::1/s3cret HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: s3cret\r\n\r\n",
        b"\x16\x03\x01 s3cret\r\n\r\n",
    ],
    ids=["a control character", "a broken URL", "two hosts", "not HTTP"],
)
async def test_a_malformed_request_leaves_no_line_in_the_log(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = HttpServer(ANY, {})
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_)
        assert b" 400 " in await reader.readline()
        writer.close()
    finally:
        await server.stop()
    # an exporter of an earlier test may still tell, on a thread of its own, that its collector is gone
    assert [line.getMessage() for line in caplog.records if not line.name.startswith("opentelemetry.")] == []


async def test_a_page_that_cannot_be_made_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    rooms: dict[str, float] = {}
    server = HttpServer(ANY, {}, Metrics([Gauge("rooms_heard", "Rooms with an agent.", lambda: rooms["rooms"])]))
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 500 " in await reader.readline()
        writer.close()
    finally:
        await server.stop()
    assert "KeyError: 'rooms'" in caplog.text
