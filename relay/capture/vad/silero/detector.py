"""Runs Silero for many streams at once: the plugin's results for less CPU."""

from __future__ import annotations

from typing import cast

import numpy as np
from livekit import rtc
from livekit.agents import utils, vad

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.vad.silero.hysteresis import Hysteresis
from relay.capture.vad.silero.network import WINDOW, Memory, Network
from relay.capture.vad.silero.plugin import Thresholds

_LOUDEST = np.iinfo(np.int16).max


class TogetherVad(vad.VAD):
    """``inner``, a ``silero.VAD``, whose streams share one run of its network.

    They take 16 kHz mono; their events are the plugin's, in its order, but carry no audio, and come up to 16 ms later.
    There are no metrics: nothing here reads them.
    """

    def __init__(self, inner: vad.VAD, network: Network, thresholds: Thresholds) -> None:
        super().__init__(capabilities=inner.capabilities)
        self._inner, self._network, self._thresholds = inner, network, thresholds

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    def stream(self) -> vad.VADStream:
        # VADStream's constructor starts two tasks, and passes each event through both.
        return cast("vad.VADStream", _SileroStream(self._network, self._thresholds))


class _Voice:
    """The state of the audio since the last flush."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.hysteresis = Hysteresis(thresholds)
        self.looked_at = False
        self.rest = bytearray()
        """Samples that do not fill a window yet."""


class _SileroStream:
    def __init__(self, network: Network, thresholds: Thresholds) -> None:
        self._network, self._thresholds = network, thresholds
        self._events: utils.aio.Chan[vad.VADEvent] = utils.aio.Chan()
        self._memory, self._voice = Memory(), _Voice(thresholds)
        self._unanswered = 0
        self._ended = False
        self._failure: Exception | None = None

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self._prove_open()
        if frame.sample_rate != SAMPLE_RATE or frame.num_channels != 1:
            raise RuntimeError(f"audio of {frame.sample_rate} Hz, {frame.num_channels} channels: 16 kHz mono is needed")
        voice = self._voice
        voice.rest += frame.data.cast("b")
        while len(voice.rest) >= WINDOW * 2:
            pcm = np.frombuffer(bytes(voice.rest[: WINDOW * 2]), np.int16)
            del voice.rest[: WINDOW * 2]
            self._unanswered += 1
            window = np.divide(pcm, _LOUDEST, dtype=np.float32)
            self._network.look(
                self._memory, window, lambda answer: self._answered(voice, answer), reset=not voice.looked_at
            )
            voice.looked_at = True

    def flush(self) -> None:
        self._prove_open()
        self._voice = _Voice(self._thresholds)

    def end_input(self) -> None:
        self.flush()
        self._ended = True
        self._close_at_the_end()

    async def aclose(self) -> None:
        self._ended = True
        self._network.forget(self._memory)
        self._events.close()

    def __aiter__(self) -> _SileroStream:
        return self

    async def __anext__(self) -> vad.VADEvent:
        try:
            return await self._events.__anext__()
        except StopAsyncIteration:
            if self._failure is not None:
                raise self._failure from None
            raise

    def _answered(self, voice: _Voice, answer: float | Exception) -> None:
        self._unanswered -= 1
        if self._events.closed:
            return
        if isinstance(answer, Exception):
            self._failure = answer
            self._events.close()
            return
        for event in voice.hysteresis.heard(answer):
            self._events.send_nowait(event)
        self._close_at_the_end()

    def _close_at_the_end(self) -> None:
        if self._ended and not self._unanswered:
            self._events.close()

    def _prove_open(self) -> None:
        if self._ended or self._events.closed:
            raise RuntimeError("this stream is closed, or its input has ended")
