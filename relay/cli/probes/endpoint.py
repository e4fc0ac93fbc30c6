"""Checks that an endpoint can be reached: its name, then a connection with TLS. Nothing is posted."""

import httpx

from relay.cli.probes.finding import Finding
from relay.config.endpoint import Endpoint
from relay.dispatch.http.aiohttp_transport import (
    NO_HANDSHAKE,
    NO_NAME_SERVER,
    REFUSED,
    UNREACHED,
    UNTRUSTED,
)
from relay.dispatch.http.outcome import AttemptFailed, OutOfResources
from relay.dispatch.http.resolver import Resolver
from relay.dispatch.http.transport import open_connections


async def probe_endpoint(endpoint: Endpoint, resolver: Resolver | None = None) -> Finding:
    """Connect to the endpoint as a delivery does, by the same code. ``resolver`` replaces the system's."""
    subject, url = f"endpoint {endpoint.name}", httpx.URL(str(endpoint.url))
    connections = open_connections(endpoint, resolver)
    try:
        address = await connections.connect(url)
    except AttemptFailed as failure:
        return Finding(subject, "failed", _cure(endpoint, failure))
    except OutOfResources as fault:
        return Finding(subject, "failed", f"this machine has run out of something: {fault}")
    finally:
        await connections.aclose()
    where = f"{url.host}:{endpoint.url.port} ({address})"
    return Finding(subject, "ok", f"{where} takes connections" + (" over TLS" if url.scheme == "https" else ""))


def _cure(endpoint: Endpoint, failure: AttemptFailed) -> str:
    host, why = (endpoint.url.host or "").strip("[]"), str(failure)
    where, seconds = f"{host}:{endpoint.url.port}", f"{endpoint.connect_timeout.total_seconds():g} s"
    match failure.stage:
        case "dns" if why == NO_NAME_SERVER:
            return f"{host}: no answer from DNS within {seconds}; check the resolver"
        case "dns":
            return f"{host} does not resolve; correct the url or the DNS"
        case "egress":
            allow = ", or name its network in egress.allow" if endpoint.egress.public_only else ""
            return f"{host}: {why}, which is never connected to; correct the url{allow}"
        case "connect" if why == REFUSED:
            local = host in ("127.0.0.1", "::1", "localhost")
            cure = "`speech-relay listen` is a receiver for this machine" if local else "is the receiver up?"
            return f"nothing listens on {where}; {cure}"
        case "connect" if why == UNREACHED:
            return f"{where}: no connection within {seconds}; is a firewall between?"
        case "tls" if why.startswith(UNTRUSTED):
            return f"{where}: its certificate is not accepted{why.removeprefix(UNTRUSTED)}"
        case "tls" if why == NO_HANDSHAKE:
            return f"{where}: no TLS handshake within {seconds}; is the url rather http://?"
        case "tls":
            return f"{where} does not speak TLS; is the url rather http://?"
        case _:
            return f"{where}: {why}"
