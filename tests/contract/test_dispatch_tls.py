"""Certificates: whose are believed, and by which endpoint. Real handshakes over the loopback interface."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest

from relay.cli.probes import probe_endpoint
from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.config.tls import trusting
from relay.dispatch.http.outcome import Delivered, Failed, Outcome
from tests.support.builders import a_record
from tests.support.dispatch.certificates import Authority, Pair, alerting, server_context
from tests.support.dispatch.dispatching import counted, dispatching, endpoint, until
from tests.support.dispatch.hostile import HEADERS, OK, post, posting, read, serving, writes
from tests.support.dispatch.memory_lanes import MemoryLog
from tests.support.dispatch.receiver import receiving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Pair:
    return authority.sign("server")


def stage(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed), outcome
    return outcome.stage


async def test_a_private_authority_is_trusted_only_by_the_endpoint_that_names_it(
    authority: Authority, server: Pair, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    async with receiving(tls=server_context(server)) as receiver:
        url = receiver.url
        async with posting(url, tls={"ca": authority.cert}) as trusting, posting(url) as plain:
            assert isinstance(await trusting.post(httpx.URL(url), HEADERS, b"{}", 5), Delivered)
            # while the first one keeps its connection open
            assert stage(await plain.post(httpx.URL(url), HEADERS, b"{}", 5)) == "tls"
            assert stage(await post(url, tls={"ca": other.cert})) == "tls"
        assert len(receiver.requests) == 1


async def test_an_authority_of_ones_own_stands_in_place_of_the_systems(authority: Authority) -> None:
    """Else a public authority could vouch for a name in a private network."""
    (only,) = trusting(authority.cert).get_ca_certs()
    assert only["subject"] == ((("commonName", "authority"),),)


async def test_a_certificate_that_is_replaced_under_its_name_is_used_from_then_on(
    authority: Authority, server: Pair, tmp_path: Path
) -> None:
    former = Authority(tmp_path, "former")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(former.cert.read_bytes())
    log = MemoryLog(SystemClock())
    async with receiving(tls=server_context(server)) as receiver:

        def configured() -> Endpoint:
            return endpoint(receiver.url, tls={"ca": trusted})

        async with dispatching(log, configured()) as (dispatcher, _):
            log.append(log.open(), a_record(1))
            await until(lambda: counted(dispatcher, "retried") > 0)
            trusted.write_bytes(authority.cert.read_bytes())
            await dispatcher.reload([configured()])
            await until(lambda: counted(dispatcher, "delivered") == 1)
        assert len(receiver.requests) == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_demands_a_client_certificate_gets_it(
    authority: Authority, server: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    client = authority.sign("client", host="relay")
    both = tmp_path / "both.pem"
    both.write_bytes(client.cert.read_bytes() + client.key.read_bytes())
    stranger = Authority(tmp_path, "stranger").sign("strange-client", host="relay")
    context = server_context(server, clients=authority)
    context.maximum_version = version
    # with 1.3 the request is under way before the refusal: whether the reason is read before the reset is luck
    refused = ("tls",) if version is ssl.TLSVersion.TLSv1_2 else ("tls", "headers", "write")
    async with receiving(tls=context) as receiver:
        ca = {"ca": authority.cert}
        assert isinstance(await post(receiver.url, tls={**ca, "cert": client.cert, "key": client.key}), Delivered)
        assert isinstance(await post(receiver.url, tls={**ca, "cert": both}), Delivered)
        assert len(receiver.requests) == 2
        assert stage(await post(receiver.url, tls=ca)) in refused
        assert stage(await post(receiver.url, tls={**ca, "cert": stranger.cert, "key": stranger.key})) in refused
        assert len(receiver.requests) == 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_check_finds_that_a_receiver_demands_a_client_certificate(
    authority: Authority, server: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    client = authority.sign("client", host="relay")
    stranger = Authority(tmp_path, "stranger").sign("strange-client", host="relay")
    context = server_context(server, clients=authority)
    context.maximum_version = version
    demands = "the receiver demands a client certificate: name one in tls.cert"
    if version is ssl.TLSVersion.TLSv1_2:  # which has no alert for it
        demands = "the receiver refuses the TLS handshake: it may demand a client certificate, in tls.cert"
    with alerting(context) as url:
        where = url.removeprefix("https://").partition("/")[0]

        async def finding(pair: Pair | None) -> tuple[str, str]:
            tls = {"ca": authority.cert, **({"cert": pair.cert, "key": pair.key} if pair else {})}
            found = await probe_endpoint(endpoint(url, tls=tls))
            return found.status, found.detail

        assert await finding(None) == ("failed", f"{where}: {demands}")
        refused = f"{where}: the receiver does not accept the client certificate in tls.cert"
        assert await finding(stranger) == ("failed", refused)
        status, detail = await finding(client)
        assert (status, "over TLS" in detail) == ("ok", True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_check_does_not_pass_a_receiver_that_closes_without_an_alert(
    authority: Authority, server: Pair, version: ssl.TLSVersion
) -> None:
    context = server_context(server, clients=authority)
    context.maximum_version = version
    async with receiving(tls=context) as receiver:
        found = await probe_endpoint(endpoint(receiver.url, tls={"ca": authority.cert}))
    assert found.status == "failed"
    assert "demand a client certificate, in tls.cert" in found.detail


async def test_an_attempt_says_that_the_receiver_demands_a_client_certificate(
    authority: Authority, server: Pair
) -> None:
    context = server_context(server, clients=authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with alerting(context) as url:
        outcome = await post(url, tls={"ca": authority.cert})
    assert isinstance(outcome, Failed)
    said = "tls: the receiver refuses the TLS handshake: it may demand a client certificate, in tls.cert"
    assert outcome.reason == said


async def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    expired = authority.sign("expired", days=-1)
    async with receiving(tls=server_context(expired)) as receiver:
        outcome = await post(receiver.url, tls={"ca": authority.cert})
    assert stage(outcome) == "tls"
    assert isinstance(outcome, Failed)
    assert "expired" in outcome.detail
    assert not receiver.requests


async def test_another_hosts_certificate_is_refused(authority: Authority) -> None:
    elsewhere = authority.sign("elsewhere", host="elsewhere.example")
    async with receiving(tls=server_context(elsewhere)) as receiver:
        assert stage(await post(receiver.url, tls={"ca": authority.cert})) == "tls"
    assert not receiver.requests


async def test_a_certificate_that_expires_while_connections_are_kept(authority: Authority, server: Pair) -> None:
    """What is open goes on, as TLS has it; the next connection is refused, and as what it is."""
    context = server_context(server)
    connections: list[asyncio.StreamWriter] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while True:
            await read(reader)
            writer.write(OK)

    async with (
        serving(behave, read_request=False, ssl=context) as url,
        posting(url, tls={"ca": authority.cert}) as transport,
    ):
        assert isinstance(await transport.post(httpx.URL(url), HEADERS, b"{}", 5), Delivered)
        expired = authority.sign("expired", days=-1)
        context.load_cert_chain(expired.cert, expired.key)
        assert isinstance(await transport.post(httpx.URL(url), HEADERS, b"{}", 5), Delivered)
        assert len(connections) == 1
        connections[0].close()
        await connections[0].wait_closed()
        assert stage(await transport.post(httpx.URL(url), HEADERS, b"{}", 5)) == "tls"


async def test_a_server_without_tls() -> None:
    async with receiving() as receiver:
        assert stage(await post(receiver.url.replace("http:", "https:"))) == "tls"


async def test_a_handshake_that_hangs_is_cut_off() -> None:
    async with serving(writes(hang=True), read_request=False) as url:
        outcome = await post(url.replace("http:", "https:"), connect_timeout=0.3, deadline=30)
    assert stage(outcome) == "tls", "the connect timeout ends it, and not the attempt's deadline"


async def test_check_connects_with_the_endpoints_certificates(authority: Authority, server: Pair) -> None:
    async with receiving(tls=server_context(server)) as receiver:

        async def finding(**settings: object) -> tuple[str, str]:
            endpoint = {"name": "crm", "url": receiver.url, "signing": "none", **settings}
            found = await probe_endpoint(Endpoint.model_validate(endpoint))
            return found.status, found.detail

        status, detail = await finding(tls={"ca": authority.cert})
        assert (status, "over TLS" in detail) == ("ok", True)
        status, detail = await finding()
        assert (status, "its certificate is not accepted" in detail) == ("failed", True)
        assert detail.endswith("; is it signed by a private authority? Name that one's certificate in tls.ca")
