"""LiveKit's own gateway to realtime models: the same protocol, another key."""

from typing import Any

from aiohttp import web
from livekit import api

from relay.capture.audio.wav import WavSource
from relay.config.capture import Realtime
from relay.events.detectors import RealtimeSpeechEnded, RealtimeSpeechStarted
from relay.events.speech import TranscriptFinal, UtteranceCompleted
from tests.support.audio.speech import speech
from tests.support.providers.openai_realtime import OpenAIRealtime
from tests.support.providers.realtime_plays import heard_by
from tests.support.providers.stt_script import utterance

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))


class Gateway(OpenAIRealtime):
    """``key`` is the secret that tokens are signed with."""

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": f"http://{self.address}/v1", "api_key": "APIkey", "api_secret": self.key}

    def key_of(self, request: web.Request) -> str | None:
        try:
            grants = api.TokenVerifier("APIkey", self.key).verify(super().key_of(request) or "")
        except Exception:  # whatever is wrong with it: it is refused
            return None
        return self.key if grants.inference is not None and grants.inference.perform else None


def model(server: Gateway, **options: Any) -> Realtime:
    detection = {"type": "server_vad", "silence_duration_ms": 500}
    said = {"model": "gpt-4o-mini-transcribe"}
    given = {"turn_detection": detection, "input_audio_transcription": said, **server.options, **options}
    return Realtime.model_validate({"provider": "openai/gpt-realtime", "options": given})


async def test_the_gateway_takes_the_same_options_and_tells_the_same() -> None:
    async with (
        Gateway([utterance(*TRIED)]) as server,
        heard_by(server, WavSource(speech("beckett.wav")), provider=model(server)) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        await session.close("unpublished")

    (connection,) = server.connections
    assert connection.query["model"] == "openai/gpt-realtime"
    heard = server.sessions[0]["audio"]["input"]
    assert heard["turn_detection"] == {
        "type": "server_vad",
        "silence_duration_ms": 500,
        "create_response": False,
        "interrupt_response": False,
    }
    assert heard["transcription"] == {"model": "gpt-4o-mini-transcribe"}
    assert server.sessions[0]["output_modalities"] == ["text"]
    assert set(server.asked) == {"session.update"}
    started, ended = told.of(RealtimeSpeechStarted)[0], told.of(RealtimeSpeechEnded)[0]
    assert (started.timing.media_start_ms, ended.timing.media_end_ms) == (400, 1150)
    assert [final.data.text for final in told.of(TranscriptFinal)] == ["Ever tried."]
    assert not told.faults


async def test_a_wrong_secret_is_refused() -> None:
    async with (
        Gateway([utterance(*TRIED)]) as server,
        heard_by(server, WavSource(speech("beckett.wav")), provider=model(server, api_secret="x" * 40)) as (_, told),
    ):
        await server.refused.wait()
    assert not told.of(TranscriptFinal)
