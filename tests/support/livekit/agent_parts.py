"""An LLM and a TTS for voice agents in tests about other parts."""

import wave
from typing import Any

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, llm, tts

from tests.support.audio.speech import speech


class Listener(llm.LLM[Any]):
    """Answers every input with a request to hear more."""

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Answer(llm.LLMStream):
    async def _run(self) -> None:
        delta = llm.ChoiceDelta(role="assistant", content="I see. Please go on.")
        self._event_ch.send_nowait(llm.ChatChunk(id="answer", delta=delta))


class Reader(tts.TTS[Any]):
    """Says every text as two seconds of A Tale of Two Cities: real speech, which a detector would report if it received
    it."""

    def __init__(self) -> None:
        with wave.open(str(speech("two_cities.wav"))) as file:
            self._rate = file.getframerate()
            self._pcm = file.readframes(2 * self._rate)
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=self._rate, num_channels=1)

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Reading(tts=self, input_text=text, conn_options=conn_options, pcm=self._pcm)


class _Reading(tts.ChunkedStream):
    def __init__(self, *, pcm: bytes, **given: Any) -> None:
        super().__init__(**given)
        self._pcm = pcm

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id="reading", sample_rate=self._tts.sample_rate, num_channels=1, mime_type="audio/pcm"
        )
        output_emitter.push(self._pcm)
        output_emitter.flush()
