"""A real LiveKit server for tests: free ports, loopback only, controlled by the test."""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from livekit import api

from tests.support.cli import ROOT

API_KEY = "devkey"
API_SECRET = "secret-secret-secret-secret-secret-0"  # the server refuses secrets under 32 characters

# interfaces and ips keep the server's own sockets on loopback; tcp_port 0 because ICE over TCP would listen on the
# wildcard address; naming a loopback STUN server keeps the server from handing public ones to its clients.
_CONFIG = """\
port: {port}
bind_addresses: ["127.0.0.1"]
keys: {{{key}: "{secret}"}}
rtc:
  node_ip: 127.0.0.1
  use_external_ip: false
  enable_loopback_candidate: true
  interfaces: {{includes: [lo]}}
  ips: {{includes: [127.0.0.0/8]}}
  udp_port: {udp_port}
  tcp_port: 0
  stun_servers: ["127.0.0.1:{port}"]
room: {{departure_timeout: {departure_timeout}}}
logging: {{level: info, json: true}}
agents: {{target_load: {target_load}}}
"""
_WEBHOOK = """\
webhook: {{api_key: {key}, urls: ["http://127.0.0.1:{port}/v1/livekit/webhook"]}}
"""


def binary() -> Path | None:
    """The server's binary: ``$LIVEKIT_SERVER``, the one that make has built, or the PATH's."""
    named = os.environ.get("LIVEKIT_SERVER")
    built = sorted((ROOT / ".cache/livekit").glob("*/livekit-server"), reverse=True)
    on_path = shutil.which("livekit-server")
    candidates = [Path(named)] if named else [*built, *([Path(on_path)] if on_path else [])]
    return next((path for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LiveKitServer:
    """One server on fixed free ports, so that it can restart at the same address."""

    def __init__(
        self,
        executable: Path,
        folder: Path,
        *,
        departure_timeout: int = 2,
        target_load: float = 2,
        tells_relay: bool = False,
    ) -> None:
        self.port = _free_port(socket.SOCK_STREAM)
        self.relay_port = _free_port(socket.SOCK_STREAM) if tells_relay else None
        """Where it sends its webhooks, and the relay listens."""
        self.log = folder / "livekit-server.log"
        self._executable = executable
        self._config = folder / "livekit.yaml"
        self._config.write_text(
            _CONFIG.format(
                port=self.port,
                key=API_KEY,
                secret=API_SECRET,
                udp_port=_free_port(socket.SOCK_DGRAM),
                departure_timeout=departure_timeout,
                target_load=target_load,
            )
            + (_WEBHOOK.format(key=API_KEY, port=self.relay_port) if tells_relay else "")
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def api(self) -> api.LiveKitAPI:
        """A client with the server's credentials; use it with ``async with``."""
        return api.LiveKitAPI(self.url, API_KEY, API_SECRET)

    def token(
        self, identity: str, room: str, *, hidden: bool = False, kind: str | None = None, name: str | None = None
    ) -> str:
        """The token for ``identity`` to join ``room``; a hidden one neither publishes nor is visible."""
        grants = api.VideoGrants(room_join=True, room=room, hidden=hidden, can_publish=not hidden)
        token = api.AccessToken(API_KEY, API_SECRET).with_identity(identity).with_name(name or identity.title())
        if kind is not None:
            token = token.with_kind(kind)  # type: ignore[arg-type]  # its parameter is a literal of the kinds
        return token.with_grants(grants).to_jwt()

    async def start(self, *, within: float = 60.0) -> None:
        """Start the server and wait until it answers. Raises AssertionError with its log where it does not."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(self._executable), "--config", str(self._config), stdout=log, stderr=log
            )
        try:
            async with asyncio.timeout(within):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise AssertionError(f"livekit-server ended with {self._process.returncode}: {self._tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"livekit-server did not answer within {within} s: {self._tail()}") from None

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    async def kill(self) -> None:
        """End it at once, like a crash. (On SIGTERM it would wait for its participants to leave.)"""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None


@contextlib.asynccontextmanager
async def livekit_server(
    *, started: bool = True, departure_timeout: int = 2, target_load: float = 2, tells_relay: bool = False
) -> AsyncIterator[LiveKitServer]:
    """A real server for the length of the block. Without a binary the test is skipped; where CI is set, it fails.

    ``target_load``: the load that a worker may report and still get rooms; 0.7 by the server's default, which a busy
    machine exceeds. ``tells_relay``: it sends its webhooks to the relay that a ``service`` on it starts.
    """
    executable = binary()
    if executable is None:
        reason = "no livekit-server: build it into .cache/livekit/, or name it in LIVEKIT_SERVER"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="livekit-") as folder:
        server = LiveKitServer(
            executable,
            Path(folder),
            departure_timeout=departure_timeout,
            target_load=target_load,
            tells_relay=tells_relay,
        )
        if started:
            await server.start()
        try:
            yield server
        finally:
            await server.kill()
