"""A stand-in that speaks AssemblyAI's streaming wire protocol (v3/ws).

https://www.assemblyai.com/docs/streaming/message-sequence and …/common-session-errors-and-closures, and what
livekit-plugins-assemblyai's stt.py sends and reads. Times are milliseconds on the wire.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from tests.support.providers.stt_script import Final, Onset, Partial, Word, text
from tests.support.providers.stt_server import Connection, SttServer


class AssemblyAI(SttServer):
    path = "/v3/ws"

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": f"ws://{self.address}", "api_key": self.key}

    def key_of(self, request: web.Request) -> str | None:
        return request.headers.get("Authorization")

    async def refuse(self, request: web.Request, status: int) -> web.StreamResponse:
        """It accepts every connection, and then reports the error and closes."""
        code, reason = {
            401: (1008, "Unauthorized Connection: Invalid API key"),
            429: (3009, "Unauthorized Connection: Too many concurrent sessions"),
        }[status]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await self._say(socket, [{"type": "Error", "error_code": code, "error": reason}])
        await socket.close(code=code, message=b"See Error message for details")
        return socket

    def hello(self, connection: Connection) -> Iterable[dict[str, Any]]:
        return [{"type": "Begin", "id": f"session-{connection.number}", "expires_at": 4_000_000_000}]

    def farewell(self, kind: str) -> Iterable[dict[str, Any]] | None:
        if kind != "Terminate":
            return None
        return [{"type": "Termination", "audio_duration_seconds": 1, "session_duration_seconds": 1}]

    def onset(self, moment: Onset) -> Iterable[dict[str, Any]]:
        return [{"type": "SpeechStarted", "timestamp": round(moment.at_s * 1000), "confidence": 0.9}]

    def partial(self, moment: Partial) -> Iterable[dict[str, Any]]:
        return [turn(moment.words, end_of_turn=False)]

    def final(self, moment: Final) -> Iterable[dict[str, Any]]:
        return [turn(moment.words, end_of_turn=True)]


def turn(
    words: Sequence[Word], *, end_of_turn: bool, formatted: bool | None = None, speaker: str | None = None
) -> dict[str, Any]:
    """A Turn message; by default formatted where it is the end."""
    return {
        "type": "Turn",
        "turn_order": 0,
        "turn_is_formatted": end_of_turn if formatted is None else formatted,
        "end_of_turn": end_of_turn,
        "end_of_turn_confidence": 1.0 if end_of_turn else 0.1,
        "transcript": text(words),
        "utterance": "",
        "language_code": "en",
        "words": [
            {
                "text": word,
                "start": round(start * 1000),
                "end": round(end * 1000),
                "confidence": 0.98,
                "word_is_final": end_of_turn,
            }
            for word, start, end in words
        ],
        **({} if speaker is None else {"speaker_label": speaker}),
    }
