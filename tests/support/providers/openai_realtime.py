"""A stand-in that speaks the wire protocol of OpenAI's Realtime API.

https://platform.openai.com/docs/api-reference/realtime-server-events, the types in ``openai.types.realtime``, and what
LiveKit's plugin sends and reads (``livekit.agents.llm._realtime.openai``).
"""

import asyncio
import base64
import json
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from tests.support.providers.stt_script import Final, Onset, Partial, text
from tests.support.providers.stt_server import Connection, SttServer

PADDING_MS = 300
SILENCE_MS = 500
"""OpenAI's own defaults for ``server_vad``."""


@dataclass
class _Saying:
    """The state of one connection."""

    items: int
    so_far: str = ""
    vad: dict[str, Any] | None = None
    """Its turn detection, until a client changes it."""


_saying: ContextVar[_Saying] = ContextVar("saying")
"""Set where a connection, and so its script, begins."""


@dataclass
class OpenAIRealtime(SttServer):
    """``answers`` true is a model that answers any input, as other vendors' may. ``mute``: this many connections are
    accepted and never sent anything."""

    answers: bool = False
    mute: int = 0
    sessions: list[dict[str, Any]] = field(default_factory=list)
    """The clients' ``session.update`` requests, in order."""
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a connection is refused."""
    asked: list[str] = field(default_factory=list)
    """Types of all client messages, except audio."""

    path = "/v1/realtime"
    sample_rate = 24_000

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": f"http://{self.address}/v1", "api_key": self.key}

    @property
    def wanted_to_speak(self) -> bool:
        """Whether a client requested an answer, or let the model give one by itself."""
        return "response.create" in self.asked or any(_lets_answer(session) for session in self.sessions)

    def key_of(self, request: web.Request) -> str | None:
        return request.headers.get("Authorization", "").removeprefix("Bearer ")

    async def refuse(self, request: web.Request, status: int) -> web.StreamResponse:
        self.refused.set()
        code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}[status]
        return web.json_response({"error": _error(code)}, status=status)

    def audio(self, message: WSMessage) -> bytes | None:
        if message.type is not WSMsgType.TEXT or '"input_audio_buffer.append"' not in message.data:
            return None
        return base64.b64decode(json.loads(message.data)["audio"])

    def kind(self, data: str) -> str:
        message = json.loads(data)
        self.asked.append(message["type"])
        if message["type"] == "session.update":
            self.sessions.append(message["session"])
        return super().kind(data)

    def hello(self, connection: Connection) -> Iterable[dict[str, Any]]:
        _saying.set(_Saying(items=100 * connection.number))
        if self.mute:
            self.mute -= 1
            connection.hangs = True
            return []
        vad = {"type": "server_vad", "prefix_padding_ms": PADDING_MS, "silence_duration_ms": 200}
        return [_session("session.created", vad)]

    def reply(self, kind: str) -> Iterable[dict[str, Any]]:
        if kind != "session.update":
            return ()
        saying, heard = _saying.get(), self.sessions[-1].get("audio", {}).get("input", {})
        if "turn_detection" in heard:
            asked = heard["turn_detection"]
            defaults = {"prefix_padding_ms": PADDING_MS, "silence_duration_ms": SILENCE_MS, "threshold": 0.5}
            saying.vad = {**(defaults if asked["type"] == "server_vad" else {}), **asked} if asked else None
        return [_session("session.updated", saying.vad)]

    def farewell(self, kind: str) -> Iterable[dict[str, Any]] | None:
        return None

    @property
    def item(self) -> str:
        """Speech starts."""
        return f"item_{_saying.get().items}"

    def onset(self, moment: Onset) -> Iterable[dict[str, Any]]:
        _saying.set(replace(_saying.get(), items=_saying.get().items + 1, so_far=""))
        started = max(0, round(moment.at_s * 1000) - PADDING_MS)
        return [_event("input_audio_buffer.speech_started", audio_start_ms=started, item_id=self.item)]

    def partial(self, moment: Partial) -> Iterable[dict[str, Any]]:
        saying, so_far = _saying.get(), text(moment.words)
        new, saying.so_far = so_far.removeprefix(saying.so_far), so_far
        return [_transcription("delta", self.item, delta=new)]

    def final(self, moment: Final) -> Iterable[dict[str, Any]]:
        ended = round(moment.words[-1][2] * 1000) if moment.words else 1_000
        return [*self.stopped(ended), *self.completed(text(moment.words))]

    def stopped(self, ended_ms: int, item: str | None = None) -> list[dict[str, Any]]:
        """Speech ends; ``item`` defaults to the last one. With ``answers`` the model starts to talk."""
        item = item or self.item
        content = [{"type": "input_audio", "transcript": None}]
        message = {"id": item, "type": "message", "role": "user", "status": "completed", "content": content}
        events = [
            _event("input_audio_buffer.speech_stopped", audio_end_ms=ended_ms + SILENCE_MS, item_id=item),
            _event("input_audio_buffer.committed", previous_item_id=None, item_id=item),
            _event("conversation.item.added", previous_item_id=None, item=message),
        ]
        if self.answers:
            response = {
                "id": f"resp_{item}",
                "object": "realtime.response",
                "status": "in_progress",
                "output": [],
            }
            events.append(_event("response.created", response=response))
        return events

    def completed(self, said: str, item: str | None = None) -> list[dict[str, Any]]:
        """The text of the speech; ``item`` defaults to the last one."""
        usage = {"type": "duration", "seconds": 1}
        return [_transcription("completed", item or self.item, transcript=said, logprobs=None, usage=usage)]


def failed_to_transcribe(item: str, code: str) -> dict[str, Any]:
    return _transcription("failed", item, error=_error(code))


def error(code: str) -> dict[str, Any]:
    """An error event, after which the server continues or not, depending on the error."""
    return _event("error", error={**_error(code), "event_id": None})


def _lets_answer(session: dict[str, Any]) -> bool:
    audio = session.get("audio")
    if audio is None:
        return False
    vad = audio["input"]["turn_detection"]
    answers = vad is not None and (vad.get("create_response") is not False or vad.get("idle_timeout_ms") is not None)
    return answers or session["output_modalities"] != ["text"]


def _session(kind: str, vad: dict[str, Any] | None) -> dict[str, Any]:
    heard = {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": vad}
    session = {"type": "realtime", "id": "sess_1", "model": "gpt-realtime", "audio": {"input": heard}}
    return _event(kind, session={**session, "object": "realtime.session"})


def _transcription(kind: str, item: str, **fields: Any) -> dict[str, Any]:
    name = f"conversation.item.input_audio_transcription.{kind}"
    return _event(name, item_id=item, content_index=0, **fields)


def _event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "event_id": "event_1", **fields}


def _error(code: str) -> dict[str, Any]:
    return {"type": "invalid_request_error", "code": code, "message": "Something about a-secret-key.", "param": None}
