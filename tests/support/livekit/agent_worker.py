"""Runs the examples' agents in their own worker, with detectors that need no key."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from livekit.agents import AgentServer, JobContext
from livekit.plugins import openai, silero

from examples import realtime_agent, voice_agent
from relay.capture.stt.moonshine import load_moonshine
from tests.support.cli import SECRET, environment
from tests.support.livekit.agent_parts import Listener, Reader
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer

_CONFIG = """\
outbox: {{url: "sqlite:///{folder}/relay.db"}}
endpoints:
  - name: receiver
    url: {url}
    events: ["*"]
    secret: {secret}
    retry: {{schedule: [250ms, 500ms{retries}]}}
shutdown: {{grace: 15s}}
"""


async def pipeline(ctx: JobContext) -> None:
    """The example with a pipeline."""
    stt = load_moonshine({}, "stt").build(None)
    await voice_agent.converse(ctx, vad=silero.VAD.load(), stt=stt, llm=Listener(), tts=Reader())


async def realtime(ctx: JobContext) -> None:
    """The example with a realtime model; the environment names its stand-in."""
    await realtime_agent.converse(ctx, openai.realtime.RealtimeModel(**json.loads(os.environ["REALTIME_OPTIONS"])))


async def _serve(entry: str) -> None:
    server = AgentServer(
        host="127.0.0.1", port=0, num_idle_processes=1, load_fnc=lambda: 0.0, initialize_process_timeout=60.0
    )
    server.rtc_session({"pipeline": pipeline, "realtime": realtime}[entry])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    running = asyncio.create_task(server.run())
    await stop.wait()
    await server.aclose()
    await asyncio.wait([running])


def main() -> None:
    asyncio.run(_serve(sys.argv[1]))


class AgentWorker:
    """The worker as run by an operator who does not use the relay."""

    def __init__(self, server: LiveKitServer, url: str, folder: Path, entry: str, **variables: str) -> None:
        self.folder = folder
        self.log = folder / "agent.log"
        self._server = server
        self._entry = entry
        self._variables = variables
        (folder / "config.yaml").write_text(_CONFIG.format(folder=folder, url=url, secret=SECRET, retries=", 1s" * 100))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it is registered."""
        registered = self._registered()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", "from tests.support.livekit.agent_worker import main; main()", self._entry),
                cwd=self.folder,
                env=environment(
                    LIVEKIT_URL=self._server.url,
                    LIVEKIT_API_KEY=API_KEY,
                    LIVEKIT_API_SECRET=API_SECRET,
                    **self._variables,
                ),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        async with asyncio.timeout(60):
            while self._registered() == registered:
                assert self._process.returncode is None, self.tail()
                await asyncio.sleep(0.05)

    def _registered(self) -> int:
        return self._server.log.read_text(errors="replace").count("worker registered")

    async def kill(self) -> None:
        """Send kill -9 to the worker and its jobs."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> int:
        """Send SIGTERM; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(30):
            return await self._process.wait()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


@contextlib.asynccontextmanager
async def agent_worker(
    server: LiveKitServer, url: str, folder: Path, entry: str, **variables: str
) -> AsyncIterator[AgentWorker]:
    worker = AgentWorker(server, url, folder, entry, **variables)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.kill()
