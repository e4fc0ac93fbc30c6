"""A job process in worker tests: it listens, and writes a JSON line per step."""

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livekit.agents import AutoSubscribe, JobContext, JobProcess

from relay.capture.audio.source import Track
from relay.capture.livekit.room import RoomMembership
from relay.clock import SystemClock
from relay.events.stream import StreamEnd


@dataclass(frozen=True)
class Settings:
    """Stands for the configuration: made in the main process, used in the job."""

    notes: Path
    kinds: tuple[str, ...] = ("standard",)


def note(settings: Settings, what: str, **more: Any) -> None:
    line = json.dumps({"what": what, "at": time.time_ns() // 1_000_000, "pid": os.getpid(), **more})
    with settings.notes.open("a") as file:
        file.write(line + "\n")


def notes(settings: Settings, what: str) -> list[dict[str, Any]]:
    if not settings.notes.exists():
        return []
    lines = [json.loads(line) for line in settings.notes.read_text().splitlines()]
    return [line for line in lines if line["what"] == what]


@dataclass
class NotingListener:
    settings: Settings
    track: Track
    reading: asyncio.Task[None] = field(init=False)
    stream_id: str = "str_noting"

    def __post_init__(self) -> None:
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        first = True
        async for _ in self.track.audio:
            if first:
                note(self.settings, "first_frame", who=self.track.participant.identity, room=self.track.room.name)
            first = False

    def mute(self) -> None: ...

    def unmute(self) -> None: ...

    async def lost(self) -> None:
        await asyncio.Event().wait()

    async def ended(self) -> None:
        await asyncio.shield(self.reading)

    async def close(self, reason: StreamEnd) -> None:
        await self.reading
        note(self.settings, "ended", who=self.track.participant.identity, reason=reason)


def prepare(settings: Settings, process: JobProcess) -> None:
    process.userdata["settings"] = settings


async def entry(context: JobContext) -> None:
    settings: Settings = context.proc.userdata["settings"]
    note(settings, "job", room=context.job.room.name, loop=type(asyncio.get_running_loop()).__module__)

    async def open_listener(track: Track) -> NotingListener:
        return NotingListener(settings, track)

    membership = RoomMembership(context.room, open_listener, settings.kinds, SystemClock())
    context.proc.userdata["membership"] = membership
    await context.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE)
    membership.start()


async def on_session_end(context: JobContext) -> None:
    membership: RoomMembership = context.proc.userdata["membership"]
    await membership.close("shutdown")
    note(context.proc.userdata["settings"], "session_end")


async def hang_on_session_end(_context: JobContext) -> None:
    time.sleep(60)  # noqa: ASYNC251 - this is the fault: nothing else in this process runs any more
