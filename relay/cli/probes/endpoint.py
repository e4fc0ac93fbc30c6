"""Can an endpoint be reached: its name, then a connection, TLS included. Nothing is posted."""

import asyncio
import socket
import ssl

from aiohttp.abc import ResolveResult

from relay.cli.probes.finding import Finding
from relay.config.endpoint import Endpoint
from relay.config.tls import client_context
from relay.dispatch.egress import AddressRefused, guarded_socket
from relay.dispatch.resolver import Resolver

DEADLINE = 5.0
"""Seconds for each step."""


async def probe_endpoint(endpoint: Endpoint) -> Finding:
    """Resolve the endpoint's host and connect to its port, by the rules and with the certificates of deliveries."""
    subject = f"endpoint {endpoint.name}"
    host, port = (endpoint.url.host or "").strip("[]"), endpoint.url.port or 0
    secure = endpoint.url.scheme == "https"
    try:
        async with asyncio.timeout(DEADLINE):
            found = await Resolver().resolve(host, port, socket.AF_UNSPEC)
    except TimeoutError:
        return Finding(subject, "failed", f"{host}: no answer from DNS within {DEADLINE:g} s; see to the resolver")
    except OSError:
        return Finding(subject, "failed", f"{host} does not resolve; correct the url or the DNS")
    try:
        async with asyncio.timeout(DEADLINE):
            address = await _connect(endpoint, host, found, secure)
    except TimeoutError:
        return Finding(subject, "failed", f"{host}:{port}: no connection within {DEADLINE:g} s; is a firewall between?")
    except AddressRefused as refusal:
        return Finding(subject, "failed", f"{host}: {refusal}, which is never connected to; {_cure(endpoint)}")
    except ssl.SSLCertVerificationError as error:
        return Finding(subject, "failed", f"{host}:{port}: its certificate is not accepted: {error.verify_message}")
    except ssl.SSLError:
        return Finding(subject, "failed", f"{host}:{port} does not speak TLS; is the url rather http://?")
    except ConnectionRefusedError:
        cure = "`speech-relay listen` is a receiver for this machine" if _is_local(host) else "is the receiver up?"
        return Finding(subject, "failed", f"nothing listens on {host}:{port}; {cure}")
    except OSError as error:
        return Finding(subject, "failed", f"{host}:{port}: {error.strerror or type(error).__name__}")
    return Finding(subject, "ok", f"{host}:{port} ({address}) takes connections" + (" over TLS" if secure else ""))


async def _connect(endpoint: Endpoint, host: str, found: list[ResolveResult], secure: bool) -> str:
    """The first address that takes a connection, or the error of the last one."""
    loop, dial = asyncio.get_running_loop(), guarded_socket(endpoint.egress)
    tls = client_context(endpoint.tls.ca, endpoint.tls.cert, endpoint.tls.key)
    for last, each in enumerate(found, start=1 - len(found)):
        address = (each["host"], each["port"])
        try:
            with dial((each["family"], socket.SOCK_STREAM, each["proto"], "", address)) as connection:
                connection.setblocking(False)
                await loop.sock_connect(connection, address)
                if secure:
                    await _shake_hands(connection, tls, host)
                return each["host"]
        except OSError:
            if last == 0:
                raise
    raise OSError("no address")


async def _shake_hands(connection: socket.socket, tls: ssl.SSLContext, host: str) -> None:
    _, writer = await asyncio.open_connection(sock=connection.dup(), ssl=tls, server_hostname=host)
    writer.transport.abort()


def _cure(endpoint: Endpoint) -> str:
    return "correct the url, or name its network in egress.allow" if endpoint.egress.public_only else "correct the url"


def _is_local(host: str) -> bool:
    return host in ("127.0.0.1", "::1", "localhost")
