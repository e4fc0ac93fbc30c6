"""A webhook receiver that verifies with ``standardwebhooks``, not with the relay's signing code."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from standardwebhooks import Webhook, WebhookVerificationError

from relay.errors import ConfigError

MAX_BODY = 1024 * 1024


@dataclass(frozen=True)
class Arrival:
    """One request as it was received."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)
    received_ns: int
    """Wall time of its last byte, nanoseconds since 1970-01-01 UTC."""
    error: str | None
    """Why its signature is invalid; ``None`` if it is valid."""

    @property
    def verified(self) -> bool:
        return self.error is None

    @cached_property
    def event(self) -> dict[str, Any]:
        """The body as JSON; empty for a body that is not a JSON object."""
        try:
            value = json.loads(self.body, parse_constant=_refuse)
        except (ValueError, RecursionError):  # the latter for one that is nested a thousand deep
            return {}
        return value if isinstance(value, dict) else {}


def _refuse(constant: str) -> None:
    """``NaN`` and ``Infinity``, which Python's parser takes."""
    raise ValueError(f"{constant} is not JSON")


class VerifyingReceiver:
    """Listens on ``host``, verifies each POST to any path, reports it to ``on_event``, and answers.

    ``secrets``: a signature by any of them is valid; without secrets, every request is accepted. ``answer`` chooses the
    status of a verified request (204 by default, or if it returns ``None``). An invalid signature gets 401.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        on_event: Callable[[Arrival], None],
        answer: Callable[[Arrival], int | None] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._verifiers = [Webhook(secret) for secret in secrets]
        self._on_event = on_event
        self._answer = answer
        self._host, self._port = host, port
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes([web.post("/{path:.*}", self._receive)])
        self._runner = web.AppRunner(
            app, access_log=None, logger=_request_log(), handle_signals=False, shutdown_timeout=1
        )

    async def start(self) -> None:
        """Start listening. Raises :class:`ConfigError` if the address is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"{self._host}:{self._port} cannot be listened on ({error.strerror}); choose another --host or --port"
            ) from None

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        port: int = self._runner.addresses[0][1]
        return port

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}/"

    async def _receive(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.RequestPayloadError:
            return web.Response(status=400, text="the body cannot be read as its headers say\n")
        except ConnectionResetError:  # the sender is gone: this is not read
            return web.Response(status=400)
        received_ns = time.time_ns()
        headers = {name.lower(): value for name, value in request.headers.items()}
        arrival = Arrival(headers, body, received_ns, verification_error(self._verifiers, body, headers))
        self._on_event(arrival)
        if arrival.error:
            return web.Response(status=401, text=f"{arrival.error}\n")
        status = self._answer(arrival) if self._answer else None
        return web.Response(status=status or 204)


def verification_error(verifiers: Sequence[Webhook], body: bytes, headers: Mapping[str, str]) -> str | None:
    """Why none of the verifiers accepts the request; ``None`` if one does, or if there are no verifiers."""
    error: str | None = None
    for verifier in verifiers:
        try:
            verifier.verify(body, dict(headers), json_parse=False)
        except WebhookVerificationError as refused:
            error = str(refused)
        except ValueError:  # the library raises it for malformed headers and bodies, too
            error = "Malformed signature or body"
        else:
            return None
    return error


def _request_log() -> logging.Logger:
    """Where the server logs its errors: those of the handler, and not what is wrong with requests.

    aiohttp logs each of these with a traceback and with what was sent: a scan of the port would fill the log, and a
    header that a client got wrong may be a secret. The client gets a 400.
    """
    logger = logging.getLogger("relay.http_server")
    logger.addFilter(_is_wanted)  # once: adding the same filter again changes nothing
    return logger


def _is_wanted(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return not isinstance(error, (HttpProcessingError, web.RequestPayloadError))
