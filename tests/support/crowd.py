"""Many people who join a room at once, from a process of their own: ``python -m tests.support.crowd URL WAV``.

Such a process reads a line with tokens, joins with all of them at the same time, publishes a track for each, and writes
a line when all are published. At a line with a number so many who have not spoken yet say what is in the WAV, over and
over until the next line; of all others next to nothing is sent, for fifty who encode silence would fill a core. It
leaves when standard input is closed.
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

_AFTERWARDS_S = 1
"""Silence after the words, which tells a listener that they are over."""


class Crowd:
    """That process, seen from the test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def published(self) -> None:
        """Until everybody has joined and published."""
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"published\n", "it ended before"

    def speak(self, many: int) -> None:
        """So many of those who have not spoken yet, from now on; those who spoke until now are silent."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % many)


@contextlib.asynccontextmanager
async def crowd(server: LiveKitServer, room: str, wav: Path, people: Sequence[str]) -> AsyncIterator[Crowd]:
    """They come at once, and leave at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.crowd", server.url, str(wav)),
        cwd=ROOT,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps([server.token(who, room) for who in people]).encode() + b"\n")
        yield Crowd(process)
    finally:
        process.stdin.close()
        await _ended(process)


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
        self._step = self._rate // 100 * 2
        self._pcm += bytes(_AFTERWARDS_S * self._rate * 2)
        self.turn = False
        self._room = rtc.Room()
        self._source = rtc.AudioSource(self._rate, 1, queue_size_ms=0)  # with a queue it would send all the time
        self._track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)

    async def publish(self, url: str, token: str) -> None:
        await self._room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(self._track, options)

    async def take_part(self) -> None:
        """Say the words over and over while it is the own turn; before and after that next to nothing."""
        while True:
            if self.turn:
                await self._speak()
                continue
            for _ in range(2):  # one packet of silence: a server has a track only once it has got one
                await self._send(bytes(self._step))
            await asyncio.sleep(0.5)

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, at in enumerate(range(0, len(self._pcm), self._step), 1):
            await self._send(self._pcm[at:][: self._step].ljust(self._step, b"\0"))
            await asyncio.sleep(began + number / 100 - loop.time())

    async def _send(self, chunk: bytes) -> None:
        await self._source.capture_frame(rtc.AudioFrame(chunk, self._rate, 1, len(chunk) // 2))

    async def leave(self) -> None:
        await self._room.disconnect()
        await self._source.aclose()


async def _all(url: str, wav: str) -> None:
    tokens = json.loads(sys.stdin.readline())
    people = [_Person(wav) for _ in tokens]
    await asyncio.gather(*(person.publish(url, token) for person, token in zip(people, tokens, strict=True)))
    parts = [asyncio.create_task(person.take_part()) for person in people]
    sys.stdout.write("published\n")
    sys.stdout.flush()
    silent = list(people)
    while many := await asyncio.to_thread(sys.stdin.readline):
        for person in people:
            person.turn = person in silent[: int(many)]
        silent = silent[int(many) :]
    for part in parts:
        part.cancel()
    await asyncio.gather(*parts, return_exceptions=True)
    await asyncio.gather(*(person.leave() for person in people))


if __name__ == "__main__":
    asyncio.run(_all(*sys.argv[1:3]))
