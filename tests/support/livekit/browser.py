"""A real browser with a fake microphone, on a page of LiveKit's React components (``tests/browser``)."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web

from tests.support.cli import ROOT
from tests.support.livekit.livekit_server import LiveKitServer

SOURCE = ROOT / "tests/browser"

# It must not contact other machines, and uses the file as its microphone, in a loop.
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


@dataclass(frozen=True)
class Row:
    """One line of the transcript on the page."""

    segment: str
    name: str
    """The participant under whom it is shown."""
    text: str
    """The visible text, without surrounding white space."""
    final: bool
    track: str


@dataclass(frozen=True)
class Screen:
    """The page's content at one moment."""

    state: str | None
    """The agent's state from ``useAgent``."""
    assistant: str | None
    """The agent's state from ``useVoiceAssistant``."""
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Told:
    """A segment in the client's older event, ``RoomEvent.TranscriptionReceived``."""

    segment: str
    who: str | None
    text: str
    final: bool


@dataclass
class Page:
    """All content shown since the start. ``screens`` has one entry per change."""

    screens: list[Screen] = field(default_factory=list)
    events: list[Told] = field(default_factory=list)
    failure: str | None = None
    log: Path = Path()
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def now(self) -> Screen:
        return self.screens[-1] if self.screens else Screen(None, None, ())

    async def until(self, condition: Callable[[Screen], bool], *, within: float = 30.0) -> Screen:
        """Return the first screen from now on that meets the condition.

        Raises an AssertionError with the current one.
        """
        try:
            async with asyncio.timeout(within):
                while not condition(self.now):
                    await self._change()
        except TimeoutError:
            shown = self.now if self.screens else f"nothing; {self.log.read_text(errors='replace')[-2000:]}"
            raise AssertionError(f"not within {within} s; shown: {shown}") from None
        return self.now

    async def change(self, *, within: float) -> None:
        """Wait until the page changes, or for this many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._change()

    async def _change(self) -> None:
        assert self.failure is None, self.failure
        self._more.clear()
        await self._more.wait()

    async def read(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._take(json.loads(message.data))
                self._more.set()
        return socket

    def _take(self, told: dict[str, Any]) -> None:
        match told:
            case {"error": error}:
                self.failure = error
            case {"event": event}:
                self.events.append(Told(event["segment"], event.get("who"), event["text"].strip(), event["final"]))
            case {"agent": agent, "rows": rows}:
                self.screens.append(
                    Screen(
                        agent.get("state"),
                        agent.get("assistant"),
                        tuple(
                            Row(row["segment"], row["name"], row["text"].strip(), row["final"] == "true", row["track"])
                            for row in rows
                        ),
                    )
                )


def chromium() -> str:
    """The browser's path. Without one the test is skipped; where CI is set, it fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or _missing("no browser: install chromium")


def npm_packages() -> Path:
    """The folder ``node_modules`` of ``tests/browser``, downloaded once by the hashes of its lock file.

    Without npm the test is skipped; where CI is set, it fails.
    """
    if shutil.which("npm") is None:
        _missing("no npm to get packages with: install nodejs and npm")
    lock = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()[:12]
    packages = ROOT / f".cache/browser/{lock}"
    modules = packages / "node_modules"
    if not modules.exists():
        packages.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=packages.parent) as folder:  # tests beside this one may do the same
            for name in ("package.json", "package-lock.json"):
                shutil.copy(SOURCE / name, folder)
            _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=Path(folder))
            with contextlib.suppress(OSError):  # it is there by now
                Path(folder).rename(packages)
                Path(folder).mkdir()
    return modules


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _bundle() -> str:
    """The page's script, bundled with its imports."""
    modules = npm_packages()
    esbuild = str(modules / ".bin/esbuild")
    return _run(esbuild, "page.jsx", "--bundle", "--format=esm", "--jsx=automatic", cwd=SOURCE, NODE_PATH=str(modules))


def _run(*command: str, cwd: Path, **variables: str) -> str:
    ran = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, f"{command[0]}: {ran.stderr[-4000:]}"
    return ran.stdout


@contextlib.asynccontextmanager
async def browser(server: LiveKitServer, identity: str, room: str, *, wav: Path) -> AsyncIterator[Page]:
    """A user who opens the page and speaks: ``wav`` (16-bit mono, 48 kHz) in a loop, from joining on.

    Without a browser or npm the test is skipped; where CI is set, it fails.
    """
    chromium()
    script = await asyncio.to_thread(_bundle)
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        page = Page(log=Path(folder) / "chromium.log")
        here = urlencode({"serverUrl": server.url, "participantToken": server.token(identity, room)})
        async with _serving(page, script) as address, _chromium_at(f"{address}/#{here}", wav, page.log):
            yield page


@contextlib.asynccontextmanager
async def _serving(page: Page, script: str) -> AsyncIterator[str]:
    async def source(_: web.Request) -> web.Response:
        return web.Response(text=script, content_type="text/javascript")

    async def document(_: web.Request) -> web.FileResponse:
        return web.FileResponse(SOURCE / "index.html")

    app = web.Application()
    app.add_routes([web.get("/", document), web.get("/page.js", source), web.get("/shown", page.read)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _chromium_at(address: str, wav: Path, log: Path) -> AsyncIterator[None]:
    executable = chromium()
    # as root the sandbox is useless, and Chromium refuses to start without this flag
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(executable, *_FLAGS, *sandbox, f"--user-data-dir={log.parent / 'profile'}"),
            *(f"--use-file-for-fake-audio-capture={wav}", address),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
