"""A voice agent without the relay: it writes its own session's events to a file."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    JobContext,
    UserInputTranscribedEvent,
    UserStateChangedEvent,
)

from tests.support.cli import environment
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer

NAME = "receptionist"


async def converse(ctx: JobContext) -> None:
    from livekit.plugins import silero

    from relay.capture.stt.moonshine import load_moonshine
    from tests.support.livekit.agent_parts import Listener, Reader

    diary = Path(os.environ["DIARY"])

    def write(**what: Any) -> None:
        with diary.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def changed(event: UserStateChangedEvent) -> None:
        write(old=event.old_state, new=event.new_state)

    def transcribed(event: UserInputTranscribedEvent) -> None:
        if event.is_final:
            write(text=event.transcript)

    session: AgentSession[None] = AgentSession(
        vad=silero.VAD.load(),
        stt=load_moonshine({}, "stt").build(None),
        llm=Listener(),
        tts=Reader(),
        turn_handling={"turn_detection": "vad"},
    )
    session.on("user_state_changed", changed)
    session.on("user_input_transcribed", transcribed)
    await session.start(Agent(instructions="Listen."), room=ctx.room)


async def _serve() -> None:
    server = AgentServer(
        host="127.0.0.1", port=0, num_idle_processes=1, load_fnc=lambda: 0.0, initialize_process_timeout=60.0
    )
    server.rtc_session(converse, agent_name=NAME)
    await server.run()


def main() -> None:
    asyncio.run(_serve())


class TalkingAgent:
    """Its worker. ``diary`` holds the events of each of its sessions."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._diary = folder / "diary.jsonl"

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(line["old"], line["new"]) for line in self._lines() if "new" in line]

    @property
    def finals(self) -> list[str]:
        return [line["text"] for line in self._lines() if "text" in line]

    def _lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self._diary.read_text().splitlines()] if self._diary.exists() else []

    async def kill(self) -> None:
        """Send kill -9 to the worker and its sessions."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


@contextlib.asynccontextmanager
async def talking_agent(server: LiveKitServer, folder: Path) -> AsyncIterator[TalkingAgent]:
    """A worker that the server knows, for the length of the block. It gets rooms by explicit dispatch, as ``NAME``."""
    known = server.log.read_text(errors="replace").count("worker registered")
    with (folder / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from tests.support.livekit.talking_agent import main; main()"),
            cwd=folder,
            env=environment(
                LIVEKIT_URL=server.url,
                LIVEKIT_API_KEY=API_KEY,
                LIVEKIT_API_SECRET=API_SECRET,
                DIARY=str(folder / "diary.jsonl"),
            ),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    agent = TalkingAgent(process, folder)
    try:
        async with asyncio.timeout(60):
            while server.log.read_text(errors="replace").count("worker registered") <= known:
                assert process.returncode is None, (folder / "agent.log").read_text(errors="replace")[-3000:]
                await asyncio.sleep(0.05)
        yield agent
    finally:
        await agent.kill()
