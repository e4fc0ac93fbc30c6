"""The base of all speech provider stand-ins: a websocket that receives audio and follows a script.

A stand-in defines the path, how keys are passed and refused, how audio arrives, and its own message for each step.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMessage, WSMsgType, web

from tests.support.providers.stt_script import AT_THE_END, Drop, Final, Garbage, Hang, Line, Onset, Partial, Script


@dataclass
class Connection:
    """One websocket, as the client opened it."""

    query: dict[str, str]
    authorization: str | None
    number: int
    audio_s: float = 0.0
    messages: list[str] = field(default_factory=list)
    """Types of the client's messages, except audio."""
    hangs: bool = False
    """It reports nothing more."""
    over: bool = False
    """No more audio comes."""


@dataclass
class SttServer(ABC):
    """``scripts`` are those of the first, second, … accepted connection; the last one serves all that follow.

    ``key``: any other is refused. ``busy``: this many connections are refused as too many.
    """

    scripts: Sequence[Script] = ((),)
    key: str = "a-key-that-is-long-enough-to-sign"
    busy: int = 0
    connections: list[Connection] = field(default_factory=list)
    """Every attempt, including refused ones."""
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    path = ""
    sample_rate = 16_000

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Options of the LiveKit plugin that select this server."""

    @abstractmethod
    def key_of(self, request: web.Request) -> str | None:
        """The key that the client sent."""

    @abstractmethod
    def onset(self, moment: Onset) -> Iterable[dict[str, Any]]: ...

    @abstractmethod
    def partial(self, moment: Partial) -> Iterable[dict[str, Any]]: ...

    @abstractmethod
    def final(self, moment: Final) -> Iterable[dict[str, Any]]: ...

    @abstractmethod
    def hello(self, connection: Connection) -> Iterable[dict[str, Any]]:
        """Its first message."""

    @abstractmethod
    def farewell(self, kind: str) -> Iterable[dict[str, Any]] | None:
        """Its reply to a client's message of this type before it closes; None: it does not close."""

    def ends_audio(self, kind: str) -> bool:
        """Whether a client's message of this type reports the end of the audio."""
        return self.farewell(kind) is not None

    def reply(self, kind: str) -> Iterable[dict[str, Any]]:
        """Its reply to a client's message of this type before it continues."""
        return ()

    async def refuse(self, request: web.Request, status: int) -> web.StreamResponse:
        """401 is a wrong key, 429 too many connections."""
        return web.json_response({"message": "refused"}, status=status)

    def audio(self, message: WSMessage) -> bytes | None:
        """The PCM in a message, if it is audio."""
        return message.data if message.type is WSMsgType.BINARY else None

    def kind(self, data: str) -> str:
        """The type of the client's message."""
        return str(json.loads(data)["type"])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(self.path, self._listen)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        key = self.key_of(request)
        connection = Connection(dict(request.query), request.headers.get("Authorization"), len(self.connections) + 1)
        self.connections.append(connection)
        if key != self.key:
            return await self.refuse(request, 401)
        if self.busy:
            self.busy -= 1
            return await self.refuse(request, 429)
        script, *later = self.scripts
        self.scripts = later or [script]
        socket = web.WebSocketResponse()
        socket.headers.update(self.headers(connection))
        await socket.prepare(request)
        await self._say(socket, self.hello(connection))
        async with asyncio.TaskGroup() as speaking:
            playing = speaking.create_task(self._play(socket, connection, script))
            async for kind in self._hear(socket, connection):
                if self.ends_audio(kind):
                    connection.over = True
                    self.heard.set()
                    speaking.create_task(self._answer(socket, kind, after=playing))
                else:
                    await self._answer(socket, kind)
            playing.cancel()
        return socket

    def headers(self, connection: Connection) -> dict[str, str]:
        """Headers of the handshake response."""
        return {}

    async def _hear(self, socket: web.WebSocketResponse, connection: Connection) -> AsyncIterator[str]:
        """The types of messages that get a reply."""
        async for message in socket:
            if (pcm := self.audio(message)) is not None:
                connection.audio_s += len(pcm) / 2 / self.sample_rate
                self.heard.set()
            elif message.type is WSMsgType.TEXT:
                kind = self.kind(message.data)
                connection.messages.append(kind)
                if not connection.hangs:
                    yield kind

    async def _answer(
        self, socket: web.WebSocketResponse, kind: str, *, after: asyncio.Task[None] | None = None
    ) -> None:
        if after is not None:
            await asyncio.wait([after])
        await self._say(socket, self.reply(kind))
        if (last_words := self.farewell(kind)) is not None:
            await self._say(socket, last_words)
            await socket.close()

    async def _play(self, socket: web.WebSocketResponse, connection: Connection, script: Script) -> None:
        for line in script:
            at = line if isinstance(line, Line) else Line(*line)
            while connection.audio_s < at.after_s and not connection.over:
                self.heard.clear()
                await self.heard.wait()
            if connection.audio_s < at.after_s != AT_THE_END:
                continue
            await asyncio.sleep(at.wait_s)  # the provider's processing time
            if connection.hangs:
                return
            match at.says:
                case dict() as message:
                    await self._say(socket, [message])
                case Onset() as moment:
                    await self._say(socket, self.onset(moment))
                case Partial() as moment:
                    await self._say(socket, self.partial(moment))
                case Final() as moment:
                    await self._say(socket, self.final(moment))
                case Garbage():
                    await socket.send_str('{"type": ')
                    await socket.send_str("[]")
                case Hang():
                    connection.hangs = True
                case Drop():
                    await socket.close(code=1011, message=b"internal error")

    async def _say(self, socket: web.WebSocketResponse, messages: Iterable[dict[str, Any]]) -> None:
        for message in messages:
            if not socket.closed:
                await socket.send_json(message)
