"""What a receiver may put on the wire, and the verdict on each: a table of answers, over plain TCP and over TLS.

Each answer is given to two requests in a row on one transport, so the table also says which connections are kept.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
import pytest

from relay.dispatch.http import tls_watch
from relay.dispatch.http import transport as dispatch_transport
from relay.dispatch.http.bounded_connection import BODY_LIMIT, HEAD_LIMIT
from relay.dispatch.http.outcome import Delivered, Failed, Outcome
from tests.support.dispatch.certificates import Authority, Pair, server_context
from tests.support.dispatch.hostile import HEADERS, posting, read, reset, serving, writes

OK = b"HTTP/1.1 200 OK\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n"
EMPTY = b"content-length: 0\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
FULL = OK + b"content-length: 2\r\n\r\nok"

DELIVERED = "delivered"
NOT_HTTP = "headers: the answer is not HTTP"
TOO_LARGE = "headers: the answer's head is too large: "
TWO_INTERIM = "headers: more than one interim answer came"
CUT_SHORT = "headers: the connection was closed before the answer's head was complete"
NO_ANSWER = "headers: the connection was closed before an answer came"


def header(size: int, name: bytes = b"x-large") -> bytes:
    """One header line of so many bytes."""
    return name + b": " + b"a" * (size - len(name) - 4) + b"\r\n"


class Wire(NamedTuple):
    name: str
    parts: list[bytes]
    """Written one after the other."""
    verdict: str
    """``delivered``, or what the failure's reason begins with."""
    kept: bool = False
    """Both requests went over one connection."""
    then: Literal["stay", "close", "reset", "hang", "repeat the last part", "drip the last part"] = "stay"
    """What the receiver does after the parts; ``stay`` waits for the next request."""


TABLE = [
    # complete answers
    Wire("200 with a length", [FULL], DELIVERED, kept=True),
    Wire("200 of length 0", [OK + EMPTY], DELIVERED, kept=True),
    Wire("201", [b"HTTP/1.1 201 Created\r\n" + EMPTY], DELIVERED, kept=True),
    Wire("202 in two parts", [b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n", b"ok"], DELIVERED, kept=True),
    Wire("204", [NO_CONTENT + b"\r\n"], DELIVERED, kept=True),
    Wire("205", [b"HTTP/1.1 205 Reset Content\r\n" + EMPTY], DELIVERED, kept=True),
    Wire("299, of no known meaning", [b"HTTP/1.1 299 Fine\r\n" + EMPTY], DELIVERED, kept=True),
    Wire("no reason phrase", [b"HTTP/1.1 200\r\n" + EMPTY], DELIVERED, kept=True),
    Wire("a reason phrase in Latin-1", [b"HTTP/1.1 200 Gr\xfc\xdfe\r\n" + EMPTY], DELIVERED, kept=True),
    Wire("chunked", [CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], DELIVERED, kept=True),
    Wire("chunked, each part by itself", [CHUNKED, b"2\r\n", b"ok\r\n", b"0\r\n", b"\r\n"], DELIVERED, kept=True),
    Wire("chunked with an extension", [CHUNKED + b"2;a=b\r\nok\r\n0\r\n\r\n"], DELIVERED, kept=True),
    Wire("chunked with a trailer", [CHUNKED + b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"], DELIVERED, kept=True),
    Wire("the head byte by byte", [OK + EMPTY], DELIVERED, kept=True, then="drip the last part"),
    Wire("chunked, byte by byte", [CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], DELIVERED, kept=True, then="drip the last part"),
    Wire("line ends without CR", [b"HTTP/1.1 200 OK\ncontent-length: 0\n\n"], DELIVERED, kept=True),
    Wire("empty lines before it", [b"\r\n\r\n" + FULL], DELIVERED, kept=True),
    Wire("a header in UTF-8", [OK + "x-name: é\r\n".encode() + EMPTY], DELIVERED, kept=True),
    Wire("a body of exactly the limit", [OK + b"content-length: %d\r\n\r\n" % BODY_LIMIT, b"x" * BODY_LIMIT],
         DELIVERED, kept=True),
    # one interim answer is taken, more are not
    Wire("100 before it", [CONTINUE + FULL], DELIVERED, kept=True),
    Wire("103 before it, in parts", [HINTS, FULL], DELIVERED, kept=True),
    Wire("102 before it", [b"HTTP/1.1 102 Processing\r\n\r\n" + FULL], DELIVERED, kept=True),
    Wire("100 before a 500", [CONTINUE + b"HTTP/1.1 500 No\r\n" + EMPTY], "status 500", kept=True),
    Wire("100 twice", [CONTINUE + CONTINUE + FULL], TWO_INTERIM),
    Wire("100, then 103", [CONTINUE, HINTS, FULL], TWO_INTERIM),
    Wire("100 without end", [CONTINUE], TWO_INTERIM, then="repeat the last part"),
    Wire("103 without end", [HINTS * 1000], TWO_INTERIM, then="repeat the last part"),
    Wire("100, then silence", [CONTINUE], "timeout", then="hang"),
    Wire("100, then the end", [CONTINUE], CUT_SHORT, then="close"),
    Wire("101", [b"HTTP/1.1 101 Switch\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"], "status 101"),
    # a complete head of a 2xx is the receiver's word, whatever follows
    Wire("204 with a body", [NO_CONTENT + b"\r\nnull"], DELIVERED),
    Wire("204 with a body that comes after it", [NO_CONTENT + b"\r\n", b"null"], DELIVERED),
    Wire("204 with a length and a body", [NO_CONTENT + b"content-length: 4\r\n\r\nnull"], DELIVERED),
    Wire("a body shorter than its length", [OK + b"content-length: 100\r\n\r\nhalf"], DELIVERED, then="close"),
    Wire("a body longer than its length", [OK + b"content-length: 2\r\n\r\nokay"], DELIVERED),
    Wire("a body that stops", [OK + b"content-length: 100\r\n\r\nhalf"], DELIVERED, then="hang"),
    Wire("a reset in the body", [OK + b"content-length: 100\r\n\r\nhalf"], DELIVERED, then="reset"),
    Wire("a body without end", [OK + b"\r\n", b"x" * 65536], DELIVERED, then="repeat the last part"),
    Wire("a body one byte over the limit", [OK + b"content-length: %d\r\n\r\n" % (BODY_LIMIT + 1),
         b"x" * (BODY_LIMIT + 1)], DELIVERED),
    Wire("a body as long as the connection", [OK + b"\r\nok"], DELIVERED, then="close"),
    Wire("HTTP/1.0", [b"HTTP/1.0 200 OK\r\n\r\nok"], DELIVERED, then="close"),
    Wire("connection: close", [OK + b"connection: close\r\n" + EMPTY], DELIVERED),
    Wire("a bad chunk behind the head", [CHUNKED + b"zz\r\n"], DELIVERED),
    Wire("a bad chunk later", [CHUNKED, b"2\r\nok\r\n", b"zz\r\n"], DELIVERED),
    Wire("a chunk of a length beyond all", [CHUNKED + b"f" * 40 + b"\r\n"], DELIVERED),
    Wire("a chunk extension without end", [CHUNKED + b"1;", b"a" * 65536], DELIVERED, then="repeat the last part"),
    Wire("trailers without end", [CHUNKED + b"0\r\n", header(1000) * 60], DELIVERED, then="repeat the last part"),
    Wire("one trailer without end", [CHUNKED + b"0\r\nx: ", b"a" * 65536], DELIVERED, then="repeat the last part"),
    Wire("tiny chunks without end", [CHUNKED, b"1\r\na\r\n" * 10_000], DELIVERED, then="repeat the last part"),
    Wire("the end in a trailer", [CHUNKED + b"0\r\nx-su"], DELIVERED, then="close"),
    Wire("a second answer behind it", [FULL + FULL], DELIVERED),
    Wire("half a second answer behind it", [FULL + b"HTTP/1.1 2"], DELIVERED),
    Wire("a length that is no number", [OK + b"content-length: two\r\n\r\nok"], DELIVERED),
    Wire("a negative length", [OK + b"content-length: -2\r\n\r\nok"], DELIVERED),
    Wire("a length of 30 digits", [OK + b"content-length: " + b"9" * 30 + b"\r\n\r\nok"], DELIVERED),
    Wire("two lengths", [OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok"], DELIVERED),
    Wire("a length and chunks", [OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"], DELIVERED),
    Wire("an unknown transfer encoding", [OK + b"transfer-encoding: rot13\r\n\r\nbx"], DELIVERED, then="close"),
    Wire("a header without a colon", [OK + b"no colon\r\n" + EMPTY], DELIVERED),
    Wire("a header with a null byte", [OK + b"x: a\0b\r\n" + EMPTY], DELIVERED),
    Wire("says gzip, is none", [OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nok"], DELIVERED, kept=True),
    Wire("says HTTP/2", [b"HTTP/2.0 200 OK\r\n" + EMPTY], DELIVERED),
    # large heads
    Wire("a header of 10 KB", [OK + header(10_000, b"content-security-policy") + EMPTY], DELIVERED, kept=True),
    Wire("a header of 32 KiB", [OK + header(32_768) + EMPTY], DELIVERED, kept=True),
    Wire("150 cookies", [OK + b"".join(b"set-cookie: c%d=1; Path=/\r\n" % n for n in range(150)) + EMPTY],
         DELIVERED, kept=True),
    Wire("a head of 64 KiB", [OK + header(HEAD_LIMIT - len(OK + EMPTY)) + EMPTY], DELIVERED, kept=True),
    Wire("2,000 headers", [OK + b"x: y\r\n" * 2000 + EMPTY], DELIVERED),
    Wire("a head of 64 KiB and one byte", [OK + header(HEAD_LIMIT - len(OK + EMPTY) + 1) + EMPTY],
         TOO_LARGE + "65537 bytes"),
    Wire("a head without end", [OK, header(1000) * 60], TOO_LARGE + "at least ", then="repeat the last part"),
    Wire("a header without end", [OK + b"x: ", b"a" * 65536], TOO_LARGE, then="repeat the last part"),
    Wire("a reason phrase without end", [b"HTTP/1.1 200 ", b"a" * 65536], TOO_LARGE, then="repeat the last part"),
    Wire("an interim head without end", [b"HTTP/1.1 103 Hints\r\n", header(1000) * 60], TOO_LARGE,
         then="repeat the last part"),
    Wire("an interim and a final head over 64 KiB together", [b"HTTP/1.1 103 Hints\r\n" + header(40_000) + b"\r\n",
         OK + header(40_000) + EMPTY], TOO_LARGE),
    Wire("empty lines without end", [b"\r\n" * 30_000], TOO_LARGE, then="repeat the last part"),
    # no complete head
    Wire("silence", [], "timeout", then="hang"),
    Wire("the end", [], NO_ANSWER, then="close"),
    Wire("the end in the status line", [b"HTTP/1.1 20"], CUT_SHORT, then="close"),
    Wire("the end before the empty line", [OK + b"content-length: 0\r\n"], CUT_SHORT, then="close"),
    Wire("a reset in the headers", [OK + b"content-le"], "headers", then="reset"),
    Wire("silence in the headers", [OK + b"content-le"], "timeout", then="hang"),
    Wire("SSH", [b"SSH-2.0-OpenSSH_9.2\r\n"], NOT_HTTP),
    Wire("SMTP", [b"220 mail.example.com ESMTP\r\n"], NOT_HTTP),
    Wire("HTML without a head", [b"<html>It works!</html>"], NOT_HTTP),
    Wire("a TLS alert", [b"\x15\x03\x03\x00\x02\x02\x46"], NOT_HTTP),
    Wire("HTTP/2 frames", [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18], NOT_HTTP),
    Wire("random bytes without end", [b"\x8f\x00\xc1" * 20_000], NOT_HTTP, then="repeat the last part"),
    Wire("a request", [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"], NOT_HTTP),
    Wire("a status of two digits", [b"HTTP/1.1 20 OK\r\n" + EMPTY], NOT_HTTP),
    Wire("a status of four digits", [b"HTTP/1.1 2000 OK\r\n" + EMPTY], NOT_HTTP),
    Wire("a status of 000", [b"HTTP/1.1 000 OK\r\n" + EMPTY], NOT_HTTP),
    Wire("no version", [b"HTTP 200 OK\r\n" + EMPTY], NOT_HTTP),
    Wire("lower case", [b"http/1.1 200 ok\r\n" + EMPTY], NOT_HTTP),
    # other statuses
    Wire("302", [b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n" + EMPTY], "status 302", kept=True),
    Wire("304", [b"HTTP/1.1 304 Not Modified\r\n\r\n"], "status 304", kept=True),
    Wire("404 with a page", [b"HTTP/1.1 404 No\r\ncontent-length: 4\r\n\r\npage"], "status 404", kept=True),
    Wire("429", [b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\n" + EMPTY], "status 429", kept=True),
    Wire("503, then silence", [b"HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nx"], "status 503", then="hang"),
    Wire("503 with a page without end", [b"HTTP/1.1 503 No\r\n\r\n", b"x" * 65536], "status 503",
         then="repeat the last part"),
    Wire("500 with broken headers", [b"HTTP/1.1 500 No\r\ncontent-length: x\r\n\r\n"], "status 500"),
    Wire("999", [b"HTTP/1.1 999 Denied\r\n" + EMPTY], "status 999", kept=True),
]  # fmt: skip


class Receiver:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            await read(reader)
            for part in self._wire.parts[: -1 if self._wire.then == "drip the last part" else None]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)  # for the most part, each is read by itself
            match self._wire.then:
                case "close":
                    return
                case "reset":
                    await asyncio.sleep(0.02)  # else the reset overtakes what was written
                    reset(writer)
                    return
                case "hang":
                    await reader.read()
                    return
                case "repeat the last part":
                    while True:
                        writer.write(self._wire.parts[-1])
                        await writer.drain()
                case "drip the last part":
                    for byte in self._wire.parts[-1]:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(0)


def seen(outcome: Outcome) -> str:
    match outcome:
        case Delivered():
            return DELIVERED
        case Failed():
            return outcome.reason
        case _:
            return f"fault: {outcome.detail}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pair]:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    return authority.cert, authority.sign("server")


def test_the_table_is_long_and_its_names_are_distinct() -> None:
    assert len(TABLE) >= 60
    assert len({wire.name for wire in TABLE}) == len(TABLE)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("wire", TABLE, ids=[wire.name for wire in TABLE])
async def test_each_answer_gets_its_verdict(
    wire: Wire, scheme: str, certificate: tuple[Path, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch_transport, "REST_SECONDS", 0.1)
    authority, pair = certificate
    listen: dict[str, Any] = {"ssl": server_context(pair)} if scheme == "https" else {}
    trust = {"tls": {"ca": authority}} if scheme == "https" else {}
    receiver = Receiver(wire)
    deadline = 0.5 if wire.verdict == "timeout" else 30
    async with serving(receiver, read_request=False, **listen) as url, posting(url, **trust) as transport:
        for _ in range(2):
            outcome = await transport.post(httpx.URL(url), HEADERS, b"{}", deadline)
            assert seen(outcome).startswith(wire.verdict)
    assert (receiver.connections == 1) == wire.kept


async def test_a_flood_of_tls_records_that_carry_nothing_ends_the_attempt(
    certificate: tuple[Path, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Session tickets here, 5 MB of them: no byte of an answer, and no limit on them in OpenSSL."""
    monkeypatch.setattr(tls_watch, "TLS_WATCH_S", 0.01)
    authority, pair = certificate
    context = server_context(pair)
    context.num_tickets = 20_000
    async with (
        serving(writes(hang=True), ssl=context) as url,
        posting(url, tls={"ca": authority}, connect_timeout=30) as transport,
    ):
        outcome = await transport.post(httpx.URL(url), HEADERS, b"{}", 30)
    assert seen(outcome).startswith("tls: the connection is flooded")


def test_a_flood_that_is_over_before_the_first_check_is_found() -> None:
    flood = tls_watch.TLS_LIMIT + 1
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as wire:
        accepted, _ = server.accept()
        with accepted, ThreadPoolExecutor() as executor:
            executor.submit(accepted.sendall, bytes(flood))
            assert len(wire.recv(flood, socket.MSG_WAITALL)) == flood
            assert tls_watch.TlsWatch(wire).finds_flood(0)
            assert not tls_watch.TlsWatch(wire).finds_flood(flood)


async def test_many_answers_on_one_tls_connection_are_no_flood(
    certificate: tuple[Path, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_watch, "TLS_WATCH_S", 0.001)
    authority, pair = certificate
    receiver = Receiver(Wire("large heads", [OK + header(32_768) + EMPTY], DELIVERED, kept=True))
    async with (
        serving(receiver, read_request=False, ssl=server_context(pair)) as url,
        posting(url, tls={"ca": authority}) as transport,
    ):
        for _ in range(200):
            assert seen(await transport.post(httpx.URL(url), HEADERS, b"{}", 30)) == DELIVERED
    assert receiver.connections == 1
