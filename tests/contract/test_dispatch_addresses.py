"""The address that is dialled is looked at each time, whatever named it. Nothing that is refused sees a packet."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import httpx
import pytest

from relay.cli.probes import probe_endpoint
from relay.config.endpoint import Egress
from relay.dispatch.http import aiohttp_transport
from relay.dispatch.http.aiohttp_transport import AiohttpTransport
from relay.dispatch.http.outcome import Delivered, Failed, Outcome
from relay.dispatch.http.resolver import MOST_ADDRESSES, Resolver
from relay.dispatch.http.transport import HttpTransport
from tests.support.builders import endpoint
from tests.support.dispatch.hostile import HEADERS, OK, dials, post, read, serving
from tests.support.dispatch.receiver import Answer, receiving

PUBLIC = Egress(public_only=True)


class Names:
    """A name server that gives one answer after the other; the last one again and again."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int, *_: Any) -> Sequence[tuple[Any, ...]]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [(families[ip_address(each).version], socket.SOCK_STREAM, 6, "", (each, port)) for each in answer]


def stage(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed), outcome
    return outcome.stage


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "0.0.0.0", "[::ffff:169.254.169.254]", "224.0.0.1", "[64:ff9b::a9fe:a9fe]", "0xa9fea9fe"],
)
async def test_refused_addresses_are_not_dialled(host: str) -> None:
    with dials() as dialled:
        assert stage(await post(f"http://{host}:9/latest/meta-data")) == "egress"
    assert not dialled, "an address that the rules refuse was connected to"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "10.0.0.1", "[fd12::1]", "[::ffff:7f00:1]"])
async def test_public_only_does_not_dial_private_addresses(host: str) -> None:
    with dials() as dialled:
        outcome = await post(f"http://{host}:9/", egress={"public_only": True})
    assert stage(outcome) == "egress"
    assert not dialled, "an address that the rules refuse was connected to"


async def test_what_is_allowed_is_dialled_though_public_only() -> None:
    async with receiving() as receiver:
        allowed = {"public_only": True, "allow": ["127.0.0.0/8"]}
        assert isinstance(await post(receiver.url, egress=allowed), Delivered)
        assert stage(await post("http://169.254.169.254/", egress={**allowed, "allow": ["0.0.0.0/0"]})) == "egress"


async def test_a_name_whose_addresses_are_refused_for_different_reasons_is_refused_as_such() -> None:
    """Some of aiohttp's errors about several addresses are of no kind."""
    names = Resolver(Names(["127.0.0.1", "10.0.0.1", "169.254.169.254"]))
    transport = HttpTransport(AiohttpTransport(egress=PUBLIC, resolver=names))
    with dials() as dialled:
        outcome = await transport.post(httpx.URL("http://receiver.example/"), HEADERS, b"{}", 5)
    await transport.aclose()
    assert stage(outcome) == "egress"
    assert not dialled, "an address that the rules refuse was connected to"


async def test_each_address_of_a_name_is_looked_at() -> None:
    async with serving(lambda _, writer: _answer(writer)) as url:
        port = httpx.URL(url).port
        names = Resolver(Names(["169.254.169.254", "127.0.0.1"]))
        transport = HttpTransport(AiohttpTransport(resolver=names))
        with dials() as dialled:
            outcome = await transport.post(httpx.URL(f"http://receiver.example:{port}/"), HEADERS, b"{}", 5)
        await transport.aclose()
    assert isinstance(outcome, Delivered)
    assert dialled == [("127.0.0.1", port)]


async def _answer(writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


async def test_a_name_with_very_many_addresses_costs_a_bounded_number_of_dials() -> None:
    names = Resolver(Names([f"127.0.{number >> 8}.{number & 255}" for number in range(1, 400)]))
    transport = HttpTransport(AiohttpTransport(resolver=names))
    with dials() as dialled:
        outcome = await transport.post(httpx.URL("http://receiver.example:9/"), HEADERS, b"{}", 5)
    await transport.aclose()
    assert stage(outcome) == "connect"
    assert len({address for address, _ in dialled}) == MOST_ADDRESSES
    assert len(dialled) <= MOST_ADDRESSES * (MOST_ADDRESSES + 1) // 2


async def test_of_very_many_addresses_each_family_keeps_its_share() -> None:
    names = Resolver(Names([*(f"fd12::{number:x}" for number in range(1, 100)), "127.0.0.1", "127.0.0.1"]))
    found = [each["host"] for each in await names.resolve("receiver.example", 9)]
    assert found == [*(f"fd12::{number:x}" for number in range(1, MOST_ADDRESSES + 1)), "127.0.0.1"]


@pytest.mark.parametrize(
    ("header", "heard"),
    [(b"connection: close\r\n", 1), (b"", 2)],
    ids=["the first connection is not kept", "the kept one dies as it is used again"],
)
async def test_a_name_that_is_rebound_between_two_connections(
    monkeypatch: pytest.MonkeyPatch, header: bytes, heard: int
) -> None:
    """First it leads to what may be dialled, then to what may not: the second dial is not made."""
    monkeypatch.setattr(aiohttp_transport, "NAMES_KEPT_S", 0)
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    egress = Egress(public_only=True, allow=("127.0.0.1/32",))
    bodies: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await read(reader))
        writer.write(b"HTTP/1.1 200 OK\r\n%scontent-length: 2\r\n\r\nok" % header)
        bodies.append(await read(reader))  # and leaves without a word

    async with serving(behave, read_request=False) as at:
        url = httpx.URL(f"http://rebound.example:{httpx.URL(at).port}/")
        transport = HttpTransport(AiohttpTransport(egress=egress, resolver=Resolver(names)))
        assert isinstance(await transport.post(url, HEADERS, b"{}", 5), Delivered)
        with dials() as dialled:
            assert stage(await transport.post(url, HEADERS, b"{}", 5)) == "egress"
        await transport.aclose()
    assert (names.asked, bodies, dialled) == (2, [b"{}"] * heard, [])


async def test_a_redirect_to_a_metadata_service_is_not_followed() -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _: Answer(302, {"location": "http://169.254.169.254/latest/meta-data"})
        with dials() as dialled:
            outcome = await post(receiver.url)
        assert stage(outcome) == "status"
        assert dialled == [("127.0.0.1", httpx.URL(receiver.url).port)]


async def test_endpoints_with_different_rules_share_no_connection() -> None:
    async with receiving() as receiver:
        assert isinstance(await post(receiver.url), Delivered)
        assert stage(await post(receiver.url, egress={"public_only": True})) == "egress"
        assert len(receiver.requests) == 1, (
            "an endpoint sent over the connection of another one, whose rules are different"
        )


async def test_a_name_server_that_does_not_answer_is_dns() -> None:
    answered = threading.Event()

    def hangs(*_: Any) -> Sequence[tuple[Any, ...]]:
        answered.wait(30)
        raise OSError

    transport = HttpTransport(AiohttpTransport(resolver=Resolver(hangs), connect_seconds=0.2))
    outcome = await transport.post(httpx.URL("http://receiver.example/"), HEADERS, b"{}", 30)
    await transport.aclose()
    answered.set()
    assert stage(outcome) == "dns", "the connect timeout ends it, and not the attempt's deadline"


async def test_many_name_servers_that_hang_do_not_keep_others_from_being_asked() -> None:
    """The event loop's own lookups share a few threads."""
    answered = threading.Event()

    def hangs(*_: Any) -> Sequence[tuple[Any, ...]]:
        answered.wait(30)
        raise OSError

    async with serving(lambda _, writer: _answer(writer)) as url:
        stuck = [HttpTransport(AiohttpTransport(resolver=Resolver(hangs))) for _ in range(40)]
        waiting = [asyncio.create_task(one.post(httpx.URL("http://x.example/"), HEADERS, b"{}", 30)) for one in stuck]
        await asyncio.sleep(0)
        outcome = await post(url.replace("127.0.0.1", "localhost"))
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for one in stuck:
            await one.aclose()
        answered.set()
    assert isinstance(outcome, Delivered)


async def test_a_name_that_does_not_exist_is_dns() -> None:
    def unknown(*_: Any) -> Sequence[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    transport = HttpTransport(AiohttpTransport(resolver=Resolver(unknown)))
    outcome = await transport.post(httpx.URL("http://no-such-host.example/"), HEADERS, b"{}", 5)
    await transport.aclose()
    assert stage(outcome) == "dns"
    assert isinstance(outcome, Failed)
    assert outcome.detail == "Name or service not known"


async def test_check_obeys_the_same_rules() -> None:
    async with receiving() as receiver:
        refusing = endpoint(url=receiver.url, egress={"public_only": True})
        with dials() as dialled:
            finding = await probe_endpoint(refusing)
        assert finding.status == "failed"
        assert "127.0.0.1 is a loopback address" in finding.detail
        assert "egress.allow" in finding.detail
        assert not dialled, "an address that the rules refuse was connected to"
