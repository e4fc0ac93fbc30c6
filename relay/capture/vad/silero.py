"""Runs Silero for many streams at once: the plugin's results for less CPU."""

from __future__ import annotations

from typing import cast

from livekit import rtc
from livekit.agents import utils, vad

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.vad.silero_network import WINDOW, WINDOW_BYTES, Memory, Network, Thresholds

_SMOOTHING = 0.35
"""The weight of the previous value in a smoothed probability: the plugin's figure."""


class Hysteresis:
    """Turns one voice's probabilities, in order, into the plugin's events by its own rules, without audio. Pure."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._smoothed = utils.ExpFilter(alpha=_SMOOTHING)
        self._windows = 0
        self._speaking = False
        self._speech = self._silence = 0
        """Windows since speech, or silence, was reported."""
        self._loud = self._quiet = 0
        """Windows in a row that are speech, or silence."""

    def heard(self, probability: float) -> list[vad.VADEvent]:
        """The events of the next window: always the inference; then a start or an end, if it is one."""
        probability = self._smoothed.apply(exp=1.0, sample=probability)
        self._windows += 1
        if self._speaking:
            self._speech += 1
        else:
            self._silence += 1
        inferred = self._event(vad.VADEventType.INFERENCE_DONE, self._speech, self._silence)
        inferred.probability = probability
        inferred.raw_accumulated_speech = _seconds(self._loud)
        inferred.raw_accumulated_silence = _seconds(self._quiet)
        loud = probability >= self._thresholds.activation or (
            self._speaking and probability > self._thresholds.deactivation
        )
        edge = self._rises() if loud else self._falls()
        return [inferred] if edge is None else [inferred, edge]

    def _rises(self) -> vad.VADEvent | None:
        self._loud, self._quiet = self._loud + 1, 0
        if self._speaking or _seconds(self._loud) < self._thresholds.min_speech_s:
            return None
        self._speaking, self._speech, self._silence = True, self._loud, 0
        return self._event(vad.VADEventType.START_OF_SPEECH, self._speech, 0)

    def _falls(self) -> vad.VADEvent | None:
        self._loud, self._quiet = 0, self._quiet + 1
        if not self._speaking or _seconds(self._quiet) < self._thresholds.min_silence_s:
            return None
        ended = self._event(vad.VADEventType.END_OF_SPEECH, max(0, self._speech - self._quiet), self._quiet)
        self._speaking, self._speech, self._silence = False, 0, self._quiet
        return ended

    def _event(self, kind: vad.VADEventType, speech: int, silence: int) -> vad.VADEvent:
        return vad.VADEvent(
            type=kind,
            samples_index=self._windows * WINDOW,
            timestamp=_seconds(self._windows),
            speech_duration=_seconds(speech),
            silence_duration=_seconds(silence),
            speaking=kind is vad.VADEventType.START_OF_SPEECH
            or (kind is vad.VADEventType.INFERENCE_DONE and self._speaking),
        )


def _seconds(windows: int) -> float:
    return windows * WINDOW / SAMPLE_RATE


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
        self.rest = b""
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
        pcm = voice.rest + bytes(frame.data)
        whole = len(pcm) // WINDOW_BYTES * WINDOW_BYTES
        voice.rest = pcm[whole:]
        for begin in range(0, whole, WINDOW_BYTES):
            window = pcm[begin : begin + WINDOW_BYTES]
            self._unanswered += 1
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
