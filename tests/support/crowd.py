"""Many people who join a room at once, from processes of their own: ``python -m tests.support.crowd URL WAV``.

Such a process reads a line with identities and their tokens, joins with all of them at the same time, publishes a
silent track for each, and writes a line when all are published. At the next line that it reads each says what is in the
WAV, once. It leaves when standard input is closed.
"""

import asyncio
import contextlib
import json
import sys
import wave
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from livekit import rtc

from tests.support.cli import ROOT, environment
from tests.support.livekit_server import LiveKitServer


class Crowd:
    """All of its processes, seen from the test."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def published(self) -> None:
        """Until everybody has joined and published."""
        for process in self._processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"published\n", "it ended before"

    def speak(self) -> None:
        """All at once, now."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"speak\n")


@contextlib.asynccontextmanager
async def crowd(
    server: LiveKitServer, room: str, wav: Path, people: Sequence[str], *, processes: int
) -> AsyncIterator[Crowd]:
    """They come at once, and leave at the end of the block."""
    running = []
    try:
        for _ in range(processes):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.crowd", server.url, str(wav)),
                cwd=ROOT,
                env=environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            running.append(process)
        for number, process in enumerate(running):
            tokens = [server.token(who, room) for who in people[number::processes]]
            assert process.stdin is not None
            process.stdin.write(json.dumps(tokens).encode() + b"\n")
        yield Crowd(running)
    finally:
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        await asyncio.gather(*(_ended(process) for process in running))


async def _ended(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


class _Person:
    def __init__(self, wav: str) -> None:
        with wave.open(wav, "rb") as file:
            self._rate, self._pcm = file.getframerate(), file.readframes(file.getnframes())
        self._silence = bytes(self._rate // 10 * 2)
        self._room = rtc.Room()
        # a second's queue: a busy machine would tear words apart otherwise
        self._source = rtc.AudioSource(self._rate, 1, queue_size_ms=1_000)
        self._track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)

    async def publish(self, url: str, token: str) -> None:
        await self._room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(self._track, options)

    async def speak(self, now: asyncio.Event) -> None:
        """Silence until it is time, and again after it."""
        while not now.is_set():
            await self._say(self._silence)
        for at in range(0, len(self._pcm), len(self._silence)):
            await self._say(self._pcm[at:][: len(self._silence)].ljust(len(self._silence), b"\0"))
        while True:
            await self._say(self._silence)

    async def _say(self, chunk: bytes) -> None:
        # the source takes no more than its queue holds, which makes this real time
        await self._source.capture_frame(rtc.AudioFrame(chunk, self._rate, 1, len(chunk) // 2))

    async def leave(self) -> None:
        await self._room.disconnect()
        await self._source.aclose()


async def _all(url: str, wav: str) -> None:
    tokens = json.loads(sys.stdin.readline())
    people = [_Person(wav) for _ in tokens]
    await asyncio.gather(*(person.publish(url, token) for person, token in zip(people, tokens, strict=True)))
    now = asyncio.Event()
    speaking = [asyncio.create_task(person.speak(now)) for person in people]
    sys.stdout.write("published\n")
    sys.stdout.flush()
    while await asyncio.to_thread(sys.stdin.readline):
        now.set()
    for task in speaking:
        task.cancel()
    await asyncio.gather(*speaking, return_exceptions=True)
    await asyncio.gather(*(person.leave() for person in people))


if __name__ == "__main__":
    asyncio.run(_all(*sys.argv[1:3]))
