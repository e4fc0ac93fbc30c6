"""Deepgram's protocol with real recognition, for many connections on a small machine.

A local model that processes every stream, including silence, is too much work beside a dozen participants and their
server. This one waits for sound, and recognizes each stretch of it once.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from tests.support.providers.deepgram import Deepgram, results, speech_started
from tests.support.providers.stt_script import Word
from tests.support.providers.stt_server import Connection

_BLOCK = 320
_LOUD = 150.0
"""Root mean square of 20 ms of 16-bit samples. After the codec, silence is close to zero."""
_HANG = 35
"""Blocks without sound that end a stretch: 0.7 s, longer than the pauses of continuous speech."""
_LEAD = 10


class Ear:
    """Cuts 16 kHz PCM into stretches of sound, by loudness alone."""

    def __init__(self) -> None:
        self._rest = b""
        self._recent: list[bytes] = []
        self._blocks = 0
        self._quiet = 0
        self.since: int | None = None
        """The first block of the current sound; None before the first."""

    def hear(self, pcm: bytes) -> Iterator[tuple[float, float, bytes]]:
        """(start and end in seconds of all audio so far, PCM) of each stretch that ended now."""
        self._rest += pcm
        while len(self._rest) >= _BLOCK * 2:
            block, self._rest = self._rest[: _BLOCK * 2], self._rest[_BLOCK * 2 :]
            self._recent.append(block)
            samples = np.frombuffer(block, np.int16).astype(np.float32)
            loud = samples @ samples > _BLOCK * _LOUD**2
            self._quiet = 0 if loud else self._quiet + 1
            if self.since is None:
                self._recent = self._recent[-_LEAD:]
                self.since = self._blocks if loud else None
            self._blocks += 1
            if self._quiet >= _HANG:
                yield from self.finish()

    def finish(self) -> Iterator[tuple[float, float, bytes]]:
        """The current stretch, if any, ended here."""
        if self.since is not None:
            end = self._blocks - self._quiet
            yield self.since * _BLOCK / 16_000, end * _BLOCK / 16_000, b"".join(self._recent)
        self.since = None


@dataclass
class DeepgramThatHears(Deepgram):
    """Returns the recognized text, in evenly spread words. ``model`` is a Moonshine transcriber."""

    model: Any = None
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    """The model handles one request at a time."""

    async def _hear(self, socket: web.WebSocketResponse, connection: Connection) -> AsyncIterator[str]:
        ear = Ear()
        async with asyncio.TaskGroup() as recognizing:
            async for message in socket:
                if (pcm := self.audio(message)) is not None:
                    before = ear.since
                    for stretch in ear.hear(pcm):
                        recognizing.create_task(self._recognize(socket, *stretch))
                    if ear.since is not None and before is None:
                        await self._say(socket, [speech_started(ear.since * _BLOCK / 16_000)])
                elif message.type is WSMsgType.TEXT:
                    kind = self.kind(message.data)
                    if kind == "CloseStream":
                        for stretch in ear.finish():
                            await self._recognize(socket, *stretch)
                    yield kind

    async def _recognize(self, socket: web.WebSocketResponse, start_s: float, end_s: float, pcm: bytes) -> None:
        text = await asyncio.get_running_loop().run_in_executor(self.thread, self._text, pcm)
        texts = text.split()
        each_s = (end_s - start_s) / max(1, len(texts))
        words: list[Word] = [
            (word, start_s + number * each_s, start_s + (number + 1) * each_s) for number, word in enumerate(texts)
        ]
        await self._say(socket, [results(words, is_final=True, speech_final=True)])

    def _text(self, pcm: bytes) -> str:
        samples = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
        return " ".join(line.text for line in self.model.transcribe_without_streaming(samples.tolist()).lines)
