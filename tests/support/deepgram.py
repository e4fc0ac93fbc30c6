"""A stand-in that speaks Deepgram's live wire protocol (v1/listen).

https://developers.deepgram.com/reference/speech-to-text/listen-streaming
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import WSMsgType, web

Word = tuple[str, float, float]
"""Text, start and end in seconds of the connection's audio."""


@dataclass
class Connection:
    """One websocket, as the client opened it."""

    query: dict[str, str]
    authorization: str | None
    audio_s: float = 0.0
    messages: list[str] = field(default_factory=list)


@dataclass
class Deepgram:
    """Says each line of its ``script`` once a connection has sent that many seconds of audio. ``scripts`` are those of
    the first, second, … connection; the last one serves for all that follow.

    ``key``: any other is refused with 401. ``drop_after_s``: the first connection is dropped, as Deepgram does on an
    error of its own, after so much audio.
    """

    scripts: Sequence[Sequence[tuple[float, dict[str, Any]]]]
    key: str = "key"
    drop_after_s: float | None = None
    connections: list[Connection] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """Options of livekit-plugins-deepgram that lead here."""
        return {"base_url": f"http://127.0.0.1:{self._port}/v1/listen", "api_key": self.key}

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/v1/listen", self._listen)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        connection = Connection(dict(request.query), request.headers.get("Authorization"))
        self.connections.append(connection)
        number = len(self.connections)
        if connection.authorization != f"Token {self.key}":
            return web.json_response({"err_code": "INVALID_AUTH", "err_msg": "Invalid credentials."}, status=401)
        script = list(self.scripts[min(number, len(self.scripts)) - 1])
        socket = web.WebSocketResponse()
        socket.headers["dg-request-id"] = f"req-{number}"
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                connection.audio_s += len(message.data) / 2 / int(connection.query["sample_rate"])
                while script and script[0][0] <= connection.audio_s:
                    await socket.send_json(script.pop(0)[1])
                if number == 1 and self.drop_after_s is not None and connection.audio_s >= self.drop_after_s:
                    await socket.close(code=1011, message=b"NET-0001")
            elif message.type is WSMsgType.TEXT:
                kind = json.loads(message.data)["type"]
                connection.messages.append(kind)
                if kind == "CloseStream":
                    await socket.send_json({"type": "Metadata", "request_id": f"req-{number}", "channels": 1})
                    await socket.close()
        return socket


def speech_started(at_s: float) -> dict[str, Any]:
    return {"type": "SpeechStarted", "channel": [0, 1], "timestamp": at_s}


def utterance_end(last_word_end_s: float) -> dict[str, Any]:
    return {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": last_word_end_s}


def results(
    words: Sequence[Word],
    *,
    is_final: bool,
    speech_final: bool = False,
    confidence: float = 0.98,
    speaker: int | None = None,
) -> dict[str, Any]:
    """A Results message: an interim, a final, or the final that ends the speech."""
    spoken = [
        {
            "word": text.lower().strip(".,"),
            "punctuated_word": text,
            "start": start,
            "end": end,
            "confidence": confidence,
            **({} if speaker is None else {"speaker": speaker}),
        }
        for text, start, end in words
    ]
    transcript = " ".join(text for text, _, _ in words)
    return {
        "type": "Results",
        "channel_index": [0, 1],
        "start": words[0][1] if words else 0.0,
        "duration": words[-1][2] - words[0][1] if words else 1.0,
        "is_final": is_final,
        "speech_final": speech_final,
        "from_finalize": False,
        "channel": {"alternatives": [{"transcript": transcript, "confidence": confidence, "words": spoken}]},
        "metadata": {"request_id": "req", "model_uuid": "m", "model_info": {"name": "nova-3", "arch": "nova-3"}},
    }
