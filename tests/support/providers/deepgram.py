"""A stand-in that speaks Deepgram's live wire protocol for the nova models (v1/listen).

https://developers.deepgram.com/reference/speech-to-text/listen-streaming, and what livekit-plugins-deepgram's stt.py
sends and reads.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from tests.support.providers.stt_script import Final, Onset, Partial, Word, text
from tests.support.providers.stt_server import Connection, SttServer


class Deepgram(SttServer):
    path = "/v1/listen"

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": f"http://{self.address}/v1/listen", "api_key": self.key}

    def key_of(self, request: web.Request) -> str | None:
        return request.headers.get("Authorization", "").removeprefix("Token ")

    async def refuse(self, request: web.Request, status: int) -> web.StreamResponse:
        code = {401: "INVALID_AUTH", 429: "TOO_MANY_REQUESTS"}[status]
        return web.json_response({"err_code": code, "err_msg": "Refused.", "request_id": "req"}, status=status)

    def headers(self, connection: Connection) -> dict[str, str]:
        return {"dg-request-id": f"req-{connection.number}"}

    def hello(self, connection: Connection) -> Iterable[dict[str, Any]]:
        return ()

    def farewell(self, kind: str) -> Iterable[dict[str, Any]] | None:
        return [{"type": "Metadata", "request_id": "req", "channels": 1}] if kind == "CloseStream" else None

    def onset(self, moment: Onset) -> Iterable[dict[str, Any]]:
        return [speech_started(moment.at_s)]

    def partial(self, moment: Partial) -> Iterable[dict[str, Any]]:
        return [results(moment.words, is_final=False)]

    def final(self, moment: Final) -> Iterable[dict[str, Any]]:
        return [results(moment.words, is_final=True, speech_final=True)]


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
            "word": word.lower().strip(".,"),
            "punctuated_word": word,
            "start": start,
            "end": end,
            "confidence": confidence,
            **({} if speaker is None else {"speaker": speaker}),
        }
        for word, start, end in words
    ]
    return {
        "type": "Results",
        "channel_index": [0, 1],
        "start": words[0][1] if words else 0.0,
        "duration": words[-1][2] - words[0][1] if words else 1.0,
        "is_final": is_final,
        "speech_final": speech_final,
        "from_finalize": False,
        "channel": {"alternatives": [{"transcript": text(words), "confidence": confidence, "words": spoken}]},
        "metadata": {"request_id": "req", "model_uuid": "m", "model_info": {"name": "nova-3", "arch": "nova-3"}},
    }
