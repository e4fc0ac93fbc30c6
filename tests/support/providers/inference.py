"""A stand-in that speaks the wire protocol of LiveKit Inference's speech-to-text gateway.

https://docs.livekit.io/agents/models/stt/, and what livekit.agents.inference.stt sends and reads. The key is a LiveKit
access token, signed with the project's secret; audio comes as base64 in JSON.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import WSMessage, WSMsgType, web
from livekit import api

from tests.support.providers.stt_script import Final, Onset, Partial, Word, text
from tests.support.providers.stt_server import Connection, SttServer


class Inference(SttServer):
    """``key`` is the secret that tokens are signed with."""

    path = "/v1/stt"

    @property
    def options(self) -> dict[str, Any]:
        return {
            "model": "deepgram/nova-3",
            "base_url": f"http://{self.address}/v1",
            "api_key": "APIkey",
            "api_secret": self.key,
        }

    def key_of(self, request: web.Request) -> str | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            grants = api.TokenVerifier("APIkey", self.key).verify(token)
        except Exception:  # any invalid token is refused
            return None
        return self.key if grants.inference is not None and grants.inference.perform else None

    def hello(self, connection: Connection) -> Iterable[dict[str, Any]]:
        return [{"type": "session.created"}]

    def farewell(self, kind: str) -> Iterable[dict[str, Any]] | None:
        return [{"type": "session.closed"}] if kind == "session.close" else None

    def ends_audio(self, kind: str) -> bool:
        return kind == "session.finalize"

    def reply(self, kind: str) -> Iterable[dict[str, Any]]:
        return [{"type": "session.finalized"}] if kind == "session.finalize" else ()

    def audio(self, message: WSMessage) -> bytes | None:
        if message.type is not WSMsgType.TEXT:
            return None
        data = json.loads(message.data)
        return base64.b64decode(data["audio"]) if data["type"] == "input_audio" else None

    def onset(self, moment: Onset) -> Iterable[dict[str, Any]]:
        return [{"type": "start_of_speech"}]

    def partial(self, moment: Partial) -> Iterable[dict[str, Any]]:
        return [transcript("interim_transcript", moment.words)]

    def final(self, moment: Final) -> Iterable[dict[str, Any]]:
        return [transcript("final_transcript", moment.words)]


def transcript(kind: str, words: Sequence[Word]) -> dict[str, Any]:
    return {
        "type": kind,
        "request_id": "req",
        "transcript": text(words),
        "language": "en",
        "start": words[0][1] if words else 0.0,
        "duration": words[-1][2] - words[0][1] if words else 0.0,
        "confidence": 0.98,
        "words": [{"word": word, "start": start, "end": end, "confidence": 0.98} for word, start, end in words],
    }
