"""What comes back from real sockets that misbehave, at every stage. What aiohttp reports how is held here."""

import asyncio
import errno
import gzip
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from relay.dispatch.aiohttp_transport import AiohttpTransport
from relay.dispatch.outcome import Delivered, Failed, Fault, Outcome
from relay.dispatch.transport import HttpTransport
from tests.support.receiver import Answer, receiving

HEADERS = [(b"content-type", b"application/json"), (b"accept-encoding", b"identity"), (b"webhook-id", b"evt_1")]
Behave = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def posting(*, tls: ssl.SSLContext | None = None, connect_seconds: float = 5) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(AiohttpTransport(tls=tls, connect_seconds=connect_seconds))
    try:
        yield transport
    finally:
        await transport.aclose()


async def post(url: str, body: bytes = b"{}", deadline: float = 5) -> Outcome:
    async with posting() as transport:
        return await transport.post(httpx.URL(url), HEADERS, body, deadline)


@asynccontextmanager
async def serving(behave: Behave, *, read_request: bool = True) -> AsyncIterator[str]:
    """A server of raw sockets: reads the request's head and hands the rest to ``behave``."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if read_request:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
            await behave(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()


def writes(*pieces: bytes, hang: bool = False) -> Behave:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if hang:
            await reader.read()

    return behave


def test_the_interface_is_httpxs_own() -> None:
    assert issubclass(AiohttpTransport, httpx.AsyncBaseTransport)


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
        for _ in range(2):
            await transport.post(httpx.URL(receiver.url), HEADERS, b"{}", 5)
        assert all("cookie" not in r.headers for r in receiver.requests)


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
        began = time.monotonic()
        async with posting(connect_seconds=0.3) as transport:
            url = httpx.URL(f"http://127.0.0.1:{full.getsockname()[1]}/")
            outcome = await transport.post(url, HEADERS, b"{}", 5)
        for filler in waiting:
            filler.close()
    assert isinstance(outcome, Failed)
    assert outcome.stage == "connect"
    assert time.monotonic() - began < 3


async def test_a_name_that_does_not_exist() -> None:
    outcome = await post("http://no-such-host.invalid/", deadline=20)
    assert isinstance(outcome, Failed)
    assert outcome.stage in ("dns", "connect")  # connect where the resolver itself takes longer than the timeout


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "[::ffff:169.254.169.254]", "224.0.0.1"])
async def test_refused_addresses_are_not_dialled(host: str) -> None:
    outcome = await post(f"http://{host}:9/latest/meta-data")
    assert isinstance(outcome, Failed)
    assert outcome.stage == "egress"


async def test_a_name_that_leads_to_a_refused_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rebound(*_: object, **__: object) -> object:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound)
    outcome = await post("http://receiver.example/")
    assert isinstance(outcome, Failed)
    assert outcome.stage == "egress"


@pytest.mark.parametrize(
    ("behave", "stage"),
    [
        pytest.param(writes(), "headers", id="closes without an answer"),
        pytest.param(writes(b"HTTP/1.1 20"), "headers", id="closes in the status line"),
        pytest.param(writes(b"SSH-2.0-OpenSSH_9.2\r\n", hang=True), "headers", id="is no web server"),
        pytest.param(
            writes(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 5_000_000 + b"\r\n\r\n"), "headers", id="5 MB in one header"
        ),
        pytest.param(
            writes(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1_000_000 + b"\r\n"), "headers", id="a million headers"
        ),
        pytest.param(writes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"), "body", id="closes in the body"),
        pytest.param(
            writes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", hang=True),
            "headers",
            id="a bad chunk right behind the head",
        ),
        pytest.param(writes(hang=True), "timeout", id="hangs before the answer"),
        pytest.param(writes(b"HTTP/1.1 200 OK\r\n", hang=True), "timeout", id="hangs in the headers"),
        pytest.param(
            writes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", hang=True), "timeout", id="hangs in the body"
        ),
        pytest.param(
            writes(b"HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nx", hang=True), "status", id="fails, then hangs"
        ),
        pytest.param(writes(b"HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nx"), "status", id="fails, then closes"),
    ],
)
async def test_bad_answers_are_bounded_and_named(behave: Behave, stage: str) -> None:
    began = time.monotonic()
    async with serving(behave) as url:
        outcome = await post(url, deadline=0.5)
    assert isinstance(outcome, Failed)
    assert outcome.stage == stage
    assert time.monotonic() - began < 3


async def test_a_dripping_body_is_cut_off_at_the_deadline() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as url:
        outcome = await post(url, deadline=0.5)
    assert isinstance(outcome, Failed)
    assert outcome.stage == "timeout"
    assert 400 < outcome.elapsed_ms < 2000


async def test_a_server_that_stops_reading_is_cut_off_at_the_deadline() -> None:
    stuck = asyncio.Event()

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio types it as the base transport
        await stuck.wait()

    async with serving(never_read, read_request=False) as url:
        outcome = await post(url, body=b"x" * 1_000_000, deadline=0.5)
        stuck.set()
    assert isinstance(outcome, Failed)
    assert outcome.stage == "timeout"


async def test_a_server_that_resets_while_we_write() -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with serving(reset, read_request=False) as url:
        outcome = await post(url, body=b"x" * 1_000_000)
    assert isinstance(outcome, Failed)
    assert outcome.stage in ("write", "headers")  # whichever side of the reset is noticed first


async def test_a_gzip_bomb_stays_packed_and_is_left_after_16_kib() -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, 9)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with serving(writes(head, bomb, hang=True)) as url:
        outcome = await post(url)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert isinstance(outcome, Delivered)
    assert grown_mb < 50


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


async def test_when_this_machine_is_out_of_descriptors_the_endpoint_is_not_charged() -> None:
    async with receiving() as receiver, posting() as transport:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare.fileno(), hard))
        try:
            outcome = await transport.post(httpx.URL(receiver.url), HEADERS, b"{}", 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            spare.close()
    assert isinstance(outcome, Fault)


async def test_what_is_not_foreseen_is_our_fault_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    transport = HttpTransport(httpx.MockTransport(broken))
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


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> tuple[Path, Path]:
        """A self-signed certificate for ``localhost``, and its key."""
        certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        return certificate, key

    @pytest.fixture
    def server(self, certificate: tuple[Path, Path]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        return context

    async def test_a_trusted_certificate_is_fine(self, server: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
        trusting = ssl.create_default_context(cafile=certificate[0])
        async with receiving(tls=server) as receiver, posting(tls=trusting) as transport:
            assert isinstance(await transport.post(httpx.URL(receiver.url), HEADERS, b"{}", 5), Delivered)

    async def test_an_unknown_certificate_is_refused(self, server: ssl.SSLContext) -> None:
        async with receiving(tls=server) as receiver:
            outcome = await post(receiver.url)
        assert isinstance(outcome, Failed)
        assert outcome.stage == "tls"
        assert not receiver.requests

    async def test_another_hosts_certificate_is_refused(
        self, server: ssl.SSLContext, certificate: tuple[Path, Path]
    ) -> None:
        trusting = ssl.create_default_context(cafile=certificate[0])
        async with receiving(tls=server) as receiver, posting(tls=trusting) as transport:
            url = httpx.URL(receiver.url.replace("localhost", "127.0.0.1"))
            outcome = await transport.post(url, HEADERS, b"{}", 5)
        assert isinstance(outcome, Failed)
        assert outcome.stage == "tls"

    async def test_a_server_without_tls(self) -> None:
        async with receiving() as receiver:
            outcome = await post(receiver.url.replace("http:", "https:"))
        assert isinstance(outcome, Failed)
        assert outcome.stage == "tls"

    async def test_a_handshake_that_hangs_is_cut_off(self) -> None:
        async with serving(writes(hang=True), read_request=False) as url, posting(connect_seconds=0.3) as transport:
            outcome = await transport.post(httpx.URL(url.replace("http:", "https:")), HEADERS, b"{}", 5)
        assert isinstance(outcome, Failed)
        assert outcome.stage == "connect"
