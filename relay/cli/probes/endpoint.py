"""Can an endpoint be reached: its name, then a connection, TLS included. Nothing is posted."""

import asyncio
import socket
import ssl

from relay.cli.probes.finding import Finding
from relay.config.models import Endpoint

DEADLINE = 5.0
"""Seconds for each step."""


async def probe_endpoint(endpoint: Endpoint) -> Finding:
    """Resolve the endpoint's host and connect to its port."""
    subject = f"endpoint {endpoint.name}"
    host, port = (endpoint.url.host or "").strip("[]"), endpoint.url.port or 0
    secure = endpoint.url.scheme == "https"
    try:
        async with asyncio.timeout(DEADLINE):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return Finding(subject, "failed", f"{host}: no answer from DNS within {DEADLINE:g} s; see to the resolver")
    except OSError:
        return Finding(subject, "failed", f"{host} does not resolve; correct the url or the DNS")
    address = found[0][4][0]
    try:
        async with asyncio.timeout(DEADLINE):
            _, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context() if secure else None)
    except TimeoutError:
        return Finding(subject, "failed", f"{host}:{port}: no connection within {DEADLINE:g} s; is a firewall between?")
    except ssl.SSLCertVerificationError as error:
        return Finding(subject, "failed", f"{host}:{port}: its certificate is not accepted: {error.verify_message}")
    except ssl.SSLError:
        return Finding(subject, "failed", f"{host}:{port} does not speak TLS; is the url rather http://?")
    except ConnectionRefusedError:
        cure = "`speech-relay listen` is a receiver for this machine" if _is_local(host) else "is the receiver up?"
        return Finding(subject, "failed", f"nothing listens on {host}:{port}; {cure}")
    except OSError as error:
        return Finding(subject, "failed", f"{host}:{port}: {error.strerror or type(error).__name__}")
    writer.transport.abort()
    return Finding(subject, "ok", f"{host}:{port} ({address}) takes connections" + (" over TLS" if secure else ""))


def _is_local(host: str) -> bool:
    return host in ("127.0.0.1", "::1", "localhost")
