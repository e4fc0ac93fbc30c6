"""The five endpoints: what they are like to send to, and what they got."""

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aiohttp import web

FIRST_FAILURES = 0.2
SLOW = 0.1

SOON = {"schedule": ["50ms", "100ms", *["200ms"] * 300], "park_after": "1h"}
"""Long enough that nothing dies while an endpoint is away."""
ENDPOINTS: Mapping[str, Mapping[str, Any]] = {
    "steady": {"retry": SOON},
    "strict": {"retry": {**SOON, "park_after": "0s"}, "order": "strict"},
    "flapping": {"retry": {**SOON, "park_after": "500ms"}, "breaker": None, "concurrency": 64},
    "gone": {"retry": SOON, "breaker": {"rest": "250ms", "window": "5s"}},
    "hanging": {"retry": SOON, "breaker": {"rest": "500ms", "window": "5s"}, "timeout": "300ms"},
}
"""What config.yaml would say of each."""
NEVER = "hanging"
"""The one that never answers: its events are all to be kept."""


@dataclass
class Endpoint:
    """One endpoint, on a port that stays its own while nobody listens there."""

    name: str
    flap_s: float
    dice: random.Random
    began: float = field(default_factory=time.monotonic)
    came: list[tuple[str, bool]] = field(default_factory=list)
    """(event id, whether it was taken) of each request, in the order in which they came."""
    taken: Counter[str] = field(default_factory=Counter)
    bodies: dict[str, bytes] = field(default_factory=dict)
    calm: bool = False
    """Set when it is no longer to flap."""
    altered: set[str] = field(default_factory=set)
    """Events whose bytes were not the same each time."""
    _refused: set[str] = field(default_factory=set)
    _port: int = 0
    _runner: web.AppRunner | None = None
    _placeholder: socket.socket | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {**self._address, "timeout": "10s", **ENDPOINTS[self.name]}

    @property
    def _address(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/"
        return {"name": self.name, "url": url, "signing": "none", "events": ["*"]}

    @property
    def connected(self) -> bool:
        """Whether any connection is open, and what came on it may still be on its way in."""
        return self._runner is not None and self._runner.server is not None and bool(self._runner.server.connections)

    async def open(self) -> None:
        if self._placeholder is None:
            await self._bind()
        assert self._placeholder is not None
        app = web.Application()
        app.router.add_post("/", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.SockSite(self._runner, self._placeholder, backlog=512).start()

    async def close(self) -> None:
        """Break off every connection and refuse new ones."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner, self._placeholder = None, None

    async def leave(self) -> None:
        """As ``close``, and keep the port until ``open``."""
        await self.close()
        await self._bind()

    async def aclose(self) -> None:
        await self.close()
        if self._placeholder is not None:
            self._placeholder.close()

    async def _bind(self) -> None:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self._port))
        self._placeholder, self._port = bound, bound.getsockname()[1]

    async def _handle(self, request: web.Request) -> web.Response:
        event, body = request.headers["webhook-id"], await request.read()
        digest = sha256(body).digest()
        if self.bodies.setdefault(event, digest) != digest:
            self.altered.add(event)
        if self.name == NEVER:
            self.came.append((event, False))
            await asyncio.Event().wait()
        if self._fails(event):
            self.came.append((event, False))
            return web.Response(status=503)
        self.came.append((event, True))
        self.taken[event] += 1
        if self.dice.random() < SLOW:
            await asyncio.sleep(self.dice.uniform(0.03, 0.08))
        return web.Response(status=204)

    def _fails(self, event: str) -> bool:
        down = (time.monotonic() - self.began) % (2 * self.flap_s) >= self.flap_s
        if self.name == "flapping" and down and not self.calm:
            return True
        if event in self._refused or self.dice.random() >= FIRST_FAILURES or event in self.taken:
            return False
        self._refused.add(event)
        return True


async def until(condition: Callable[[], bool | Awaitable[bool]], *, within: float) -> bool:
    """Whether it came to hold; looked at ten times a second."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return True
        await asyncio.sleep(0.1)
    return False
