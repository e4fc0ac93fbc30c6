"""A stand-in that speaks Deepgram's turn-based wire protocol for the flux models (v2/listen).

https://developers.deepgram.com/docs/flux/state, and what livekit-plugins-deepgram's stt_v2.py sends and reads.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from tests.support.providers.deepgram import Deepgram
from tests.support.providers.stt_script import Final, Onset, Partial, Word, text
from tests.support.providers.stt_server import Connection


class DeepgramFlux(Deepgram):
    path = "/v2/listen"
    turn = 0

    @property
    def options(self) -> dict[str, Any]:
        return {"model": "flux-general-en", "base_url": f"ws://{self.address}/v2/listen", "api_key": self.key}

    def key_of(self, request: web.Request) -> str | None:
        # Its connection accepts none of v1's options.
        unknown = set(request.query) - {"model", "sample_rate", "encoding", "mip_opt_out", "eager_eot_threshold"}
        if unknown:
            raise web.HTTPBadRequest(text=f"unknown: {unknown}")
        return super().key_of(request)

    def hello(self, connection: Connection) -> Iterable[dict[str, Any]]:
        return [{"type": "Connected", "request_id": f"req-{connection.number}", "sequence_id": 0}]

    def farewell(self, kind: str) -> Iterable[dict[str, Any]] | None:
        return () if kind == "CloseStream" else None

    def onset(self, moment: Onset) -> Iterable[dict[str, Any]]:
        return [turn_info("StartOfTurn", self.turn, ())]

    def partial(self, moment: Partial) -> Iterable[dict[str, Any]]:
        return [turn_info("Update", self.turn, moment.words)]

    def final(self, moment: Final) -> Iterable[dict[str, Any]]:
        self.turn += 1
        return [turn_info("EndOfTurn", self.turn - 1, moment.words)]


def turn_info(event: str, turn: int, words: Sequence[Word], *, timed: bool = True) -> dict[str, Any]:
    """A TurnInfo message. Its audio window begins where the turn before it ended, in silence. ``timed`` false: a
    release without word times."""
    return {
        "type": "TurnInfo",
        "event": event,
        "turn_index": turn,
        "audio_window_start": 0.0,
        "audio_window_end": words[-1][2] + 0.2 if words else 0.5,
        "transcript": text(words),
        "words": [
            {"word": word, "confidence": 0.98, **({"start": start, "end": end} if timed else {})}
            for word, start, end in words
        ],
        "end_of_turn_confidence": 0.9 if event == "EndOfTurn" else 0.1,
        "request_id": "req",
        "sequence_id": 1,
    }
