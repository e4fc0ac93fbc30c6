"""Checks every request before the application sees it, and completes every answer."""

import logging
from collections.abc import Collection, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.api.access import Gate
from relay.api.problems import Problem, log_away
from relay.errors import OutboxError
from relay.telemetry.log_dedup import Outage

logger = logging.getLogger(__name__)

MOST_BODY = 64 * 1024
"""Bytes of the body of a request."""

_HEADERS = (
    (b"connection", b"close"),  # one request each: what is not open cannot be idle
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_WAITING = ("/events/stream", "/ping")
"""The ends of paths whose requests wait for something else than the log, and have limits of their own."""
_FOREIGN = "The header Host is not a name of this relay; api.allowed_hosts names more."


class Guard:
    """An ASGI application around another. What it refuses, the other never sees."""

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate | None,
        *,
        demands_token: bool,
        hosts: Collection[str],
        signed: Mapping[str, int],
    ) -> None:
        """``gate``: None if there is no /v1. ``hosts``: accepted names, in lower case. ``signed``: the paths to which
        signed requests are posted, which need no token, and how many bytes each accepts."""
        self._app, self._gate, self._demands_token, self._hosts = app, gate, demands_token, hosts
        self._signed = signed
        # never over: that another request succeeds may be because it does not read the log
        self._log_away = Outage(logger, "a request to the API failed")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(send)
        try:
            scope = self._admitted(scope)
            with self._under_way(scope):
                await self._app(scope, _Bounded(receive, self._most_body(scope)), answer)
        except Problem as problem:
            await problem.response()(scope, receive, answer)
        except OutboxError as error:
            self._log_away.failed(error)
            if not answer.started:
                await log_away().response()(scope, receive, answer)
        except Exception:
            logger.exception("a request to the API failed")
            if not answer.started:
                await Problem(500, "The relay failed; its log has the reason.").response()(scope, receive, answer)

    def _admitted(self, scope: Scope) -> Scope:
        """The request as the application sees it. Raises :class:`Problem`."""
        headers = Headers(scope=scope)
        host, path, method = headers.get("host"), scope["path"], scope["method"]
        if not path.startswith("/"):
            raise Problem(400, "The target of the request must be a path.")
        if foreign_host(host, self._hosts):
            raise Problem(421, _FOREIGN)
        state: dict[str, Any] = {**scope.get("state", {}), "head": method == "HEAD"}
        if self._gate is not None and (path == "/v1" or path.startswith("/v1/")):
            signed = method == "POST" and path in self._signed
            if not signed and not self._demands_token and unproven_host(host, self._hosts):
                raise Problem(421, _FOREIGN)
            if foreign_origin(headers.get("origin"), headers.get("sec-fetch-site"), host):
                raise Problem(403, "Web pages of other sites may not use this API.")
            if not signed:
                state["viewer"] = self._gate.admit(headers.get("authorization"))
            if method not in ("GET", "HEAD"):
                if not signed and method in ("POST", "PUT"):  # a page cannot send another without asking first
                    _prove_json(headers)
                _prove_short(headers, self._most_body(scope))
        # Every GET answers a HEAD; the server leaves out the body, by the method that it has read itself.
        return {**scope, "state": state, "method": "GET" if method == "HEAD" else method}

    def _under_way(self, scope: Scope) -> AbstractContextManager[None]:
        viewer, waits = scope["state"].get("viewer"), scope["path"].endswith(_WAITING)
        return nullcontext() if self._gate is None or viewer is None or waits else self._gate.under_way(viewer)

    def _most_body(self, scope: Scope) -> int:
        return self._signed.get(scope["path"], MOST_BODY)


def _prove_json(headers: Headers) -> None:
    """A page of another site cannot send this type without asking first, and it is never allowed to."""
    kind = (headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "Send `Content-Type: application/json`, and JSON as the body, if only {}.")


def _prove_short(headers: Headers, most: int) -> None:
    length = headers.get("content-length")
    if length is not None and length.isdecimal() and int(length) > most:
        raise Problem(413, f"The body is longer than {most} bytes.")


class _Bounded:
    """Receives a body, up to its limit."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._size = receive, most, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise Problem(413, f"The body is longer than {self._most} bytes.")
        return message


class _Answer:
    """Sends an answer with the headers that every one has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            given = list(message.get("headers", ()))
            own = {name for name, _ in given}  # of the page, which may load its scripts
            message = {**message, "headers": [*given, *(each for each in _HEADERS if each[0] not in own)]}
        await self._send(message)


# Which ``Host`` and ``Origin`` headers are this port's own. Pure.

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".svc")
"""Domains that cannot be registered, so that no web page can be served from them over the internet."""


def foreign_host(header: str | None, own: Collection[str]) -> bool:
    """Whether a ``Host`` header names another site.

    A web page can have its own name resolved to this machine and then read this port as its own origin (DNS rebinding).
    Addresses and names without a registrable domain cannot belong to such a page; nor can a request without the header,
    which browsers always send. ``own``: further names, in lower case, of this port.
    """
    if header is None:
        return False
    name = _hostname(header)
    if "." not in name or name in own or name.endswith(_LOCAL_SUFFIXES):
        return False
    return not _is_address(name)


def unproven_host(header: str | None, own: Collection[str]) -> bool:
    """As ``foreign_host``, for what no token protects: a name of the local network is foreign too.

    Another machine of the network can claim such a name (mDNS, LLMNR), serve a page from it, and then let it resolve to
    this one.
    """
    if header is None:
        return False
    name = _hostname(header)
    return not (name == "localhost" or name in own or _is_address(name))


def foreign_origin(origin: str | None, fetch_site: str | None, host: str | None) -> bool:
    """Whether a web page of another site sent the request.

    ``origin`` is compared with ``host`` without the scheme, because a proxy may serve this port over TLS.
    ``fetch_site``: the header ``Sec-Fetch-Site``, which browsers send where they send no ``Origin``.
    """
    if origin is not None:
        scheme, separator, place = origin.partition("://")
        return not separator or scheme not in ("http", "https") or place.lower() != (host or "").strip().lower()
    return fetch_site is not None and fetch_site not in ("same-origin", "none")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _hostname(header: str) -> str:
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
