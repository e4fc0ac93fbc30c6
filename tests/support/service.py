"""The service as an operator runs it: ``speech-relay run``, ``worker`` or ``dispatch`` in its own process group."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.cli import SECRET, environment
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer

_PATIENCE_S = 120.0
"""A start takes 5 s of an idle machine. Two at once have taken a minute of a busy one."""

MOONSHINE = "stt: {provider: moonshine}"

_CONFIG = """\
capture:
  rooms: ["{rooms}"]
  {detectors}
  max_load: {max_load}
  {warm}
  {capture}
outbox: {{url: "sqlite:///{folder}/relay.db"}}
endpoints:
  - name: receiver
    url: {url}
    events: ["*"]
    secret: {secret}
    retry: {{schedule: [250ms, 500ms{retries}]}}
    breaker: null   # what is tried while a receiver is down is what some tests wait for
{http}
shutdown: {{grace: 15s}}
"""


class Service:
    """``speech-relay run``, or another role, which can be stopped, killed, and restarted on the same log."""

    def __init__(
        self,
        server: LiveKitServer,
        url: str,
        folder: Path,
        *,
        rooms: str = "*",
        capture: str = "",
        detectors: str = MOONSHINE,
        max_load: float = 1.0,
        warm: int | None = 1,
        variables: Mapping[str, str] | None = None,
        role: str = "run",
        under: Sequence[str] = (),
    ) -> None:
        self._role, self._under = role, under
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", server.relay_port or 0))
            self._admin = probe.getsockname()[1]
        listen = f'listen: "127.0.0.1:{self._admin}"'
        self.folder = folder
        self.log = folder / "service.log"
        self._server = server
        self._variables = dict(variables or {})
        (folder / "config.yaml").write_text(
            _CONFIG.format(
                rooms=rooms,
                capture=capture,
                detectors=detectors,
                max_load=max_load,
                warm=f"max_warm_processes: {warm}" if warm else "",
                folder=folder,
                url=url,
                secret=SECRET,
                http=f"api: {{{listen}, livekit_webhook: true}}" if server.relay_port else f"admin: {{{listen}}}",
                retries=", 1s" * 100,
            )
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *, within: float = _PATIENCE_S) -> None:
        """Start it and wait until it reports that it is ready."""
        await self.launch()
        await self.until_ready(within=within)

    async def launch(self) -> None:
        """Start it without waiting."""
        listens = {"LIVEKIT_URL": self._server.url, "LIVEKIT_API_KEY": API_KEY, "LIVEKIT_API_SECRET": API_SECRET}
        livekit = listens if self._role != "dispatch" else {}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._under, sys.executable, "-m", "relay", self._role, "--log-level", "debug"),
                cwd=self.folder,
                env=environment(**livekit, **self._variables),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def until_answering(self, *, within: float = _PATIENCE_S) -> None:
        """Wait until it has opened its log and serves its readiness."""
        async with asyncio.timeout(within):
            while await asyncio.to_thread(self.readiness) is None:  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.05)

    async def until_ready(self, *, within: float = _PATIENCE_S) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(within):
                while not await asyncio.to_thread(self.ready):
                    assert self._process.returncode is None, self.tail()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"the service is not ready within {within} s: {self.tail()}") from None

    @property
    def url(self) -> str:
        """Where it serves HTTP."""
        return f"http://127.0.0.1:{self._admin}"

    def ready(self) -> bool:
        return self.readiness() == {}

    def readiness(self) -> dict[str, str] | None:
        """Which of its parts are not ready, and why; None while it does not answer."""
        try:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/readyz", timeout=2) as answer:
                    said = json.load(answer)
            except urllib.error.HTTPError as refusal:
                said = json.load(refusal)
        except OSError:
            return None
        checks = {name: reason for name, reason in said["checks"].items() if reason}
        assert said["ready"] is not bool(checks)
        return checks

    def metrics(self) -> dict[str, float]:
        """The values of /metrics, by name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/metrics", timeout=2) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value)
            for name, value in (line.rsplit(maxsplit=1) for line in lines if not line.startswith("#"))
        }

    def lines(self, text: str) -> list[str]:
        """The lines of its log with this text."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if text in line]

    def jobs(self) -> list[psutil.Process]:
        """The job processes with a room: they have the log open."""
        return [process for process in self._processes() if _has_open(process, self.folder / "relay.db")]

    def waiting(self) -> list[psutil.Process]:
        """The job processes that wait for a room: the SDK runs in them, and the log is not open."""
        jobs = {job.pid for job in self.jobs()}
        return [process for process in self._processes() if process.pid not in jobs and _runs_the_sdk(process)]

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def kill_job(self) -> None:
        """Send kill -9 to every job process with a room; the service itself continues."""
        for job in self.jobs():
            with contextlib.suppress(psutil.NoSuchProcess):
                job.kill()

    def freeze_job(self) -> list[psutil.Process]:
        """Send SIGSTOP to every job process with a room. Call ``resume()``, or the service cannot stop in order."""
        frozen = self.jobs()
        for job in frozen:
            job.suspend()
        return frozen

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the service and all its child processes."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    async def kill_alone(self) -> None:
        """Send kill -9 to the service, and to none of its job processes."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def kill(self) -> None:
        """Send kill -9 to the service and all its child processes."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def hang_up(self) -> None:
        """Send SIGHUP to the service: it reads the configuration again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    async def ended(self, *, within: float = _PATIENCE_S) -> int:
        """Wait until it has ended by itself; return its exit code."""
        assert self._process is not None
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def stop(self, *, within: float = _PATIENCE_S) -> int:
        """Send SIGTERM; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def interrupt(self, *, within: float = _PATIENCE_S) -> int:
        """Send Ctrl-C as its terminal would, to all its processes; return its exit code."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)
        async with asyncio.timeout(within):
            return await self._process.wait()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


def _has_open(process: psutil.Process, path: Path) -> bool:
    try:
        return any(Path(file.path) == path for file in process.open_files())
    except psutil.Error:
        return False


def _runs_the_sdk(process: psutil.Process) -> bool:
    """Whether it runs the SDK, whose runtime has threads: the fork server has one."""
    try:
        return process.num_threads() > 3
    except psutil.Error:
        return False


@contextlib.asynccontextmanager
async def service(
    server: LiveKitServer,
    url: str,
    folder: Path,
    *,
    rooms: str = "*",
    capture: str = "",
    detectors: str = MOONSHINE,
    max_load: float = 1.0,
    warm: int | None = 1,
    variables: Mapping[str, str] | None = None,
    role: str = "run",
    under: Sequence[str] = (),
) -> AsyncIterator[Service]:
    """A service that is not started yet. Remaining processes are killed at the end of the block.

    ``capture`` is one more line of YAML for that section, ``detectors`` the line that configures the detectors.
    ``max_load`` defaults to the maximum, because a machine that runs tests is busy. ``warm``, how many processes wait
    for rooms (None: the relay's default), defaults to one, because each takes half a second of that machine.
    ``variables`` are added to its environment. ``role`` is the command that is run, ``under`` a command that runs it.
    """
    running = Service(
        server,
        url,
        folder,
        rooms=rooms,
        capture=capture,
        detectors=detectors,
        max_load=max_load,
        warm=warm,
        variables=variables,
        role=role,
        under=under,
    )
    try:
        yield running
    finally:
        if running._process is not None:
            await running.kill()
