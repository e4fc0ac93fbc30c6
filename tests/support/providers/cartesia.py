"""Stand-ins for Cartesia's two streaming protocols: turns (ink-2) and audio chunks (ink-whisper).

https://docs.cartesia.ai/api-reference/stt/turns/websocket and https://docs.cartesia.ai/api-reference/stt/stt, and what
the modules in livekit-plugins-cartesia's _recognize_streams/ send and read.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from tests.support.providers.stt_script import Final, Onset, Partial, Word, text
from tests.support.providers.stt_server import Connection, SttServer


class CartesiaInk2(SttServer):
    path = "/stt/turns/websocket"

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": f"http://{self.address}", "api_key": self.key}

    def key_of(self, request: web.Request) -> str | None:
        return request.headers.get("X-API-Key")

    def headers(self, connection: Connection) -> dict[str, str]:
        return {"x-request-id": f"req-{connection.number}"}

    def hello(self, connection: Connection) -> Iterable[dict[str, Any]]:
        return [_event("connected")]

    def farewell(self, kind: str) -> Iterable[dict[str, Any]] | None:
        return () if kind == "close" else None

    def onset(self, moment: Onset) -> Iterable[dict[str, Any]]:
        return [_event("turn.start")]

    def partial(self, moment: Partial) -> Iterable[dict[str, Any]]:
        return [_event("turn.update", transcript=text(moment.words))]

    def final(self, moment: Final) -> Iterable[dict[str, Any]]:
        return [_event("turn.end", transcript=text(moment.words))]


class CartesiaInkWhisper(CartesiaInk2):
    path = "/stt/websocket"

    @property
    def options(self) -> dict[str, Any]:
        return {**super().options, "model": "ink-whisper"}

    def kind(self, data: str) -> str:
        """Its client sends plain words."""
        return data

    def hello(self, connection: Connection) -> Iterable[dict[str, Any]]:
        return ()

    def farewell(self, kind: str) -> Iterable[dict[str, Any]] | None:
        return {"finalize": None, "close": [_event("done")]}[kind]

    def onset(self, moment: Onset) -> Iterable[dict[str, Any]]:
        """It does not report the start of speech."""
        return ()

    def partial(self, moment: Partial) -> Iterable[dict[str, Any]]:
        """It has finals only."""
        return ()

    def final(self, moment: Final) -> Iterable[dict[str, Any]]:
        return [transcript(moment.words)]


def transcript(words: Sequence[Word]) -> dict[str, Any]:
    """A transcript message. Its duration is that of the audio chunk, including silence."""
    return _event(
        "transcript",
        is_final=True,
        text=text(words),
        duration=words[-1][2] + 0.3 if words else 1.0,
        words=[{"word": word, "start": start, "end": end} for word, start, end in words],
    )


def _event(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "request_id": "req", **more}
