"""A real HTTP receiver on the loopback interface that records requests and answers as configured."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aiohttp import web

from relay.events.catalog import parse
from relay.events.envelope import Event


@dataclass(frozen=True, eq=False)
class Received:
    """One request as received."""

    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    at: float
    """When it was complete, on the monotonic clock, in seconds."""

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def json(self) -> Any:
        return json.loads(self.body)

    @cached_property
    def event(self) -> Event:
        """Its body, parsed once: a test that waits looks at every request again whenever another one comes."""
        return parse(self.body)


@dataclass(frozen=True)
class Answer:
    """The answer, and how long to wait before it (in seconds)."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    after: float = 0


Script = Callable[[Received], Answer | Awaitable[Answer]]


class Receiver:
    """``answer`` decides; by default every request is accepted."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Received] = []
        self.answered: list[Received] = []
        """The answered requests, in the order of the answers."""
        self.answer: Script = lambda _: Answer()
        self.in_flight = 0
        self.most_in_flight = 0
        self._came = asyncio.Condition()

    async def wait(self, count: int, *, within: float = 60.0) -> list[Received]:
        """Wait for this many requests, or raise an AssertionError with the actual number."""
        return await self.wait_for(lambda: len(self.requests) >= count, within=within)

    async def wait_for(self, condition: Callable[[], bool], *, within: float = 60.0) -> list[Received]:
        """Wait until the condition holds after some request or answer."""
        try:
            async with asyncio.timeout(within), self._came:
                await self._came.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"not within {within} s; {len(self.requests)} requests have come") from None
        return self.requests

    async def handle(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            request.path,
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
            time.monotonic(),
        )
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with self._came:
                self.requests.append(received)
                self._came.notify_all()
            answer = self.answer(received)
            if not isinstance(answer, Answer):
                answer = await answer
            if answer.after:
                await asyncio.sleep(answer.after)
            async with self._came:
                self.answered.append(received)
                self._came.notify_all()
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver that listens on a free port of 127.0.0.1 for as long as the block runs."""
    receiver = Receiver()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    scheme = "https" if tls else "http"
    host = "localhost" if tls else "127.0.0.1"
    receiver.url = f"{scheme}://{host}:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
