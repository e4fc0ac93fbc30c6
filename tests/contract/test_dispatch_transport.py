"""What comes back from real sockets that misbehave, at every stage. What aiohttp reports how is held here."""

import asyncio
import errno
import socket
import time
from collections.abc import Iterator
from typing import NoReturn

import aiohttp
import httpx
import pytest
from yarl import URL

from relay.cli.sample import fresh
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.route import Route
from relay.dispatch.http import aiohttp_transport
from relay.dispatch.http.aiohttp_transport import AiohttpTransport
from relay.dispatch.http.bounded_connection import BoundedConnection
from relay.dispatch.http.outcome import Delivered, Failed, Fault
from relay.dispatch.http.transport import HttpTransport
from tests.support.dispatch.hostile import HEADERS, OK, Behave, post, posting, reset, serving, writes
from tests.support.dispatch.receiver import Answer, Receiver, receiving


async def test_a_2xx_is_delivered_and_the_request_is_what_was_given() -> None:
    async with receiving() as receiver, posting() as transport:
        outcome = await transport.post(httpx.URL(receiver.url + "/h%2Fx?token=a%2Bb"), HEADERS, b'{"a":1}', 5)
        assert isinstance(outcome, Delivered)
        assert outcome.status == 200
        (request,) = receiver.requests
        assert request.body == b'{"a":1}'
        assert set(request.headers) == {
            "host", "content-type", "accept-encoding", "webhook-id", "content-length",
        }  # fmt: skip


async def test_an_escaped_url_arrives_as_it_was_written() -> None:
    lines: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()

    async with serving(behave, read_request=False) as url:
        assert isinstance(await post(url + "/a%2Fb?token=c%2Bd%3D"), Delivered)
    assert lines == [b"POST /hook/a%2Fb?token=c%2Bd%3D HTTP/1.1\r\n"]


async def test_connections_are_kept() -> None:
    connections = 0

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"{}")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with serving(behave, read_request=False) as url, posting() as transport:
        for _ in range(5):
            assert isinstance(await transport.post(httpx.URL(url), HEADERS, b"{}", 5), Delivered)
    assert connections == 1


async def test_an_answer_that_comes_again_is_kept_again() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"{}")
            writer.write(OK)

    async with serving(behave, read_request=False) as url, posting(keep_answers=True) as transport:
        outcomes = [await transport.post(httpx.URL(url), HEADERS, b"{}", 5) for _ in range(3)]
    assert [isinstance(outcome, Delivered) and outcome.answer for outcome in outcomes] == [b"ok"] * 3


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(status: int) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda r: Answer(status, {"location": receiver.url + "/elsewhere"})
        outcome = await post(receiver.url)
        assert isinstance(outcome, Failed)
        assert (outcome.stage, outcome.status) == ("status", status)
        assert [r.path for r in receiver.requests] == ["/"]


async def test_no_cookies_are_kept() -> None:
    async with receiving() as receiver, posting() as transport:
        receiver.answer = lambda _: Answer(headers={"set-cookie": "a=b; Path=/"})
        url = httpx.URL(receiver.url).copy_with(host="localhost")  # aiohttp keeps none of an address
        for _ in range(2):
            assert isinstance(await transport.post(url, HEADERS, b"{}", 5), Delivered)
        assert ["cookie" in r.headers for r in receiver.requests] == [False, False]


async def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as receiver, receiving() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert isinstance(await post(receiver.url), Delivered)
        assert (len(receiver.requests), len(proxy.requests)) == (1, 0)


async def test_status_and_retry_after_come_back() -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _: Answer(429, {"Retry-After": "7"})
        outcome = await post(receiver.url)
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.status, outcome.retry_after) == ("status", 429, "7")


async def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        outcome = await post(f"http://127.0.0.1:{closed.getsockname()[1]}/")
    assert isinstance(outcome, Failed)
    assert outcome.stage == "connect"
    assert outcome.status is None


async def test_no_connection_within_the_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for filler in waiting:
            filler.setblocking(False)
            assert filler.connect_ex(full.getsockname()) == errno.EINPROGRESS
        async with posting(connect_timeout=0.3) as transport:
            url = httpx.URL(f"http://127.0.0.1:{full.getsockname()[1]}/")
            outcome = await transport.post(url, HEADERS, b"{}", 30)
        for filler in waiting:
            filler.close()
    assert isinstance(outcome, Failed)
    assert outcome.stage == "connect", "the connect timeout ends it, and not the attempt's deadline"


@pytest.mark.parametrize(
    ("behave", "stage"),
    [
        pytest.param(writes(), "headers", id="closes without an answer"),
        pytest.param(writes(b"HTTP/1.1 20"), "headers", id="closes in the status line"),
        pytest.param(writes(b"SSH-2.0-OpenSSH_9.2\r\n", hang=True), "headers", id="is no web server"),
        pytest.param(writes(hang=True), "timeout", id="hangs before the answer"),
        pytest.param(writes(b"HTTP/1.1 200 OK\r\n", hang=True), "timeout", id="hangs in the headers"),
        pytest.param(
            writes(b"HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nx", hang=True), "status", id="fails, then hangs"
        ),
        pytest.param(writes(b"HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nx"), "status", id="fails, then closes"),
    ],
)
async def test_bad_answers_are_bounded_and_named(behave: Behave, stage: str) -> None:
    async with asyncio.timeout(30), serving(behave) as url:
        outcome = await post(url, deadline=0.5)
    assert isinstance(outcome, Failed)
    assert outcome.stage == stage


@pytest.mark.parametrize(
    ("sent", "stage"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-le", "headers", id="in the headers"),
        pytest.param(b"HTTP/1.1 500 No\r\ncontent-length: 100\r\n\r\nhalf", "status", id="in a failure's body"),
    ],
)
async def test_a_reset_in_mid_answer(sent: bytes, stage: str) -> None:
    async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.05)  # else the reset overtakes what was written
        reset(writer)

    async with serving(resets) as url:
        outcome = await post(url)
    assert isinstance(outcome, Failed)
    assert outcome.stage == stage


async def test_an_endless_head_is_cut_off_at_the_deadline() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with asyncio.timeout(30), serving(drip) as url:
        outcome = await post(url, deadline=0.5)
    assert isinstance(outcome, Failed)
    assert outcome.stage == "timeout"
    assert outcome.elapsed_ms > 400


async def test_a_dripping_body_does_not_undo_a_2xx_and_costs_the_connection() -> None:
    gone = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            gone.set()

    async with serving(drip) as url, posting() as transport:
        assert isinstance(await transport.post(httpx.URL(url), HEADERS, b"{}", 0.5), Delivered)
        await asyncio.wait_for(gone.wait(), 30)


async def test_a_server_that_stops_reading_is_cut_off_at_the_deadline() -> None:
    """And disconnected: what is unsent keeps no socket open."""
    stuck, gone = asyncio.Event(), asyncio.Event()

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio types it as the base transport
        await stuck.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        try:
            await reader.read()
        finally:
            gone.set()

    async with serving(never_read, read_request=False) as url, posting() as transport:
        outcome = await transport.post(httpx.URL(url), HEADERS, b"x" * 20_000_000, 0.5)
        stuck.set()
        await asyncio.wait_for(gone.wait(), 30)
    assert isinstance(outcome, Failed)
    assert outcome.stage == "timeout"


async def test_an_answer_before_the_request_was_read_costs_the_connection() -> None:
    connections, answered = 0, asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio types it as the base transport
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        await answered.wait()  # else a reset overtakes the answer

    async with serving(refuse, read_request=False) as url, posting() as transport:
        for _ in range(2):
            outcome = await transport.post(httpx.URL(url), HEADERS, b"x" * 20_000_000, 30)
            assert isinstance(outcome, Failed)
            assert outcome.status == 413
        answered.set()
    assert connections == 2


async def test_header_bytes_arrive_as_they_were_given() -> None:
    """Each byte once: not decoded and encoded again on the way."""
    heads: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    given = [(b"X-Mixed-Case", "café ☕".encode()), (b"x-latin", b"caf\xe9"), (b"x-twice", b"1"), (b"x-twice", b"2")]
    async with serving(behave, read_request=False) as url, posting() as transport:
        assert isinstance(await transport.post(httpx.URL(url), given, b"{}", 5), Delivered)
    first, *lines = heads[0].rstrip(b"\r\n").split(b"\r\n")
    assert first == b"POST /hook HTTP/1.1"
    assert [b"%b: %b" % header for header in given] == [
        line for line in lines if not line.startswith((b"Host: 127.0.0.1:", b"Content-Length: 2"))
    ]


async def test_a_configured_header_outside_ascii_arrives_as_utf_8() -> None:
    heads: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    async with serving(behave, read_request=False) as url, posting(url) as transport:
        route = Route(Endpoint(name="crm", url=url, signing="none", headers={"X-Shop": "café"}))
        sent = route.headers(fresh("ping", endpoint="crm"), b"{}", 0, 0)
        assert isinstance(await transport.post(route.url, sent, b"{}", 5), Delivered)
    assert b"\r\nx-shop: caf\xc3\xa9\r\n" in heads[0]


@pytest.mark.parametrize("value", [b"a\r\nx-forged: 1", b"a\nx-forged: 1", b"a\rb", b"a\0b"])
async def test_a_line_break_in_a_header_is_not_sent(value: bytes) -> None:
    async with receiving() as receiver, posting() as transport:
        outcome = await transport.post(httpx.URL(receiver.url), [(b"x-a", value)], b"{}", 5)
        assert isinstance(outcome, Fault)
        assert not receiver.requests


async def test_every_connection_of_the_pool_limits_what_it_reads() -> None:
    """By ``TCPConnector._factory``, which is private to aiohttp."""
    async with receiving() as receiver:
        connector = aiohttp_transport._BoundedConnector(60)
        request = aiohttp.ClientRequest("POST", URL(receiver.url), loop=asyncio.get_running_loop())
        connection = await connector.connect(request, [], aiohttp.ClientTimeout())
        assert isinstance(connection.protocol, BoundedConnection)
        connection.close()
        await connector.close()


async def test_a_server_that_resets_while_we_write() -> None:
    async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    async with serving(resets, read_request=False) as url:
        outcome = await post(url, body=b"x" * 1_000_000)
    assert isinstance(outcome, Failed)
    assert outcome.stage in ("write", "headers")  # whichever side of the reset is noticed first


async def test_after_cancelled_and_timed_out_requests_the_next_ones_go_through() -> None:
    """httpx's own pool never recovers from this."""
    async with receiving() as receiver, posting() as transport:
        receiver.answer = lambda _: Answer(after=0.03)
        url = httpx.URL(receiver.url)

        async def churn(deadline: float) -> None:
            for _ in range(20):
                await transport.post(url, HEADERS, b"{}", deadline)

        await asyncio.gather(*(churn(deadline) for deadline in (0.001, 0.005, 0.02, 0.05) for _ in range(5)))
        receiver.answer = lambda _: Answer()
        outcomes = await asyncio.gather(*(transport.post(url, HEADERS, b"{}", 5) for _ in range(20)))
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)


async def test_what_is_not_foreseen_is_our_fault_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(AiohttpTransport):
        async def send(self, *_: object) -> NoReturn:
            raise ZeroDivisionError

    transport = HttpTransport(Broken())
    outcome = await transport.post(httpx.URL("http://x/"), HEADERS, b"{}", 5)
    assert outcome == Fault(outcome.elapsed_ms, "ZeroDivisionError")
    assert "not foreseen" in caplog.text


async def test_cancellation_is_not_an_outcome() -> None:
    async with serving(writes(hang=True)) as url, posting() as transport:
        task = asyncio.create_task(transport.post(httpx.URL(url), HEADERS, b"{}", 30))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class Stopping(list[tuple[bytes, bytes]]):
    """Headers that stop the whole process for a moment when they are written, as SIGSTOP would."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        time.sleep(0.3)
        return super().__iter__()


async def test_nothing_is_sent_by_a_process_that_was_stopped_past_its_deadline(receiver: Receiver) -> None:
    """Another dispatcher may have sent it meanwhile, and what follows it."""
    url = httpx.URL(receiver.url)
    async with posting() as transport:
        assert isinstance(await transport.post(url, HEADERS, b"{}", 5), Delivered)
        late = await transport.post(url, Stopping([(b"webhook-id", b"evt_late")]), b"{}", 0.1)
        assert isinstance(late, Failed)
        assert late.stage == "timeout"
        assert isinstance(await transport.post(url, HEADERS, b"{}", 5), Delivered)
    assert [each.id for each in receiver.requests] == ["evt_1", "evt_1"]
