"""Moonshine: local speech recognition, with no key and no download (the extra ``moonshine``)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
import numpy as np
from livekit import rtc
from livekit.agents import APIConnectOptions, LanguageCode, NotGivenOr, stt, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.inference_thread import Runner, Runners
from relay.capture.plugins import build, installing
from relay.errors import ProviderError

_CHUNK = SAMPLE_RATE // 10
"""Samples handed over at once: 100 ms. Less costs more switches between threads and recognizes nothing sooner."""
_HUNG_AFTER_S = 8.0
"""A chunk takes some milliseconds, and some hundred where it ends a line. Less than the watchdog waits for a word in
speech (10 s), so that a stream that it has restarted finds a working thread."""
_LINES = 32
"""Lines after which the engine's stream is recreated at the next pause: it returns all its lines with each update."""

_ENGLISH = LanguageCode("en")


class MoonshineModel:
    """The model, and the one thread on which all streams of this process use it.

    The engine uses several cores by itself, so more threads would gain nothing and slow the machine for others.
    """

    name = "moonshine"
    paced = True

    def __init__(self, load: Callable[[], Any], update_interval: float, *, now: bool) -> None:
        """``load`` makes a ``moonshine_voice.Transcriber``: ``now``, or for the first stream."""
        self._load = load
        self._threads = Runners("moonshine", _HUNG_AFTER_S)
        self._seat = Seat(self._threads.current, load)
        if now:
            self._seat.load()
        self.update_interval = update_interval

    def build(self, http: aiohttp.ClientSession | None) -> stt.STT[Any]:
        return MoonshineStt(self)

    def seat(self) -> "Seat":
        """Where a new stream runs. After a hang this is another thread, with the model loaded again, since the hung
        thread may hold locks."""
        thread = self._threads.current
        if self._seat.thread is not thread:
            self._seat = Seat(thread, self._load)
        return self._seat

    def close(self) -> None:
        self._threads.close()


class Seat:
    """A thread, and the transcriber that only that thread uses."""

    def __init__(self, thread: Runner, load: Callable[[], Any]) -> None:
        self.thread = thread
        self._load = load
        self._transcriber: Any = None

    def load(self) -> Any:
        """The transcriber. Blocks the first time."""
        if self._transcriber is None:
            self._transcriber = self._load()
        return self._transcriber


def load_moonshine(options: dict[str, Any], key: str, *, model: bool = True) -> MoonshineModel:
    """Load the model bundled in the wheel: English, tiny. Blocking, 0.3 s and 140 MB. Raises ProviderError.

    Without ``model`` the options are validated, and the model is loaded when a stream needs it.

    ``update_interval``: seconds of audio between two passes over the current speech, which produce interims.
    """
    try:
        import moonshine_voice
    except ModuleNotFoundError:
        raise ProviderError(f"{key}.provider: moonshine is not installed: {installing('moonshine')}") from None

    def load(*, update_interval: float = 0.5) -> MoonshineModel:
        transcriber = partial(
            moonshine_voice.Transcriber,
            model_path=str(moonshine_voice.get_model_path("tiny-en")),
            model_arch=moonshine_voice.ModelArch.TINY,
            options={"return_audio_data": "false"},
        )
        return MoonshineModel(transcriber, float(update_interval), now=model)

    return build(load, options, key)


class MoonshineStt(stt.STT[Any]):
    """Streaming recognition with interims: a line of the engine is a stretch of speech.

    The model has no word times. START_OF_SPEECH and END_OF_SPEECH carry the line's times.
    """

    def __init__(self, model: MoonshineModel) -> None:
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True, interim_results=True, aligned_transcript="chunk", offline_recognize=False
            )
        )
        self._model = model

    @property
    def model(self) -> str:
        return "tiny-en"

    @property
    def provider(self) -> str:
        return "moonshine"

    async def _recognize_impl(
        self, buffer: utils.AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        raise NotImplementedError("Moonshine is used as a stream")

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> "MoonshineStream":
        return MoonshineStream(self, self._model, conn_options)


class MoonshineStream(stt.RecognizeStream):
    """One stream, queued on the model's thread with the others."""

    def __init__(self, owner: MoonshineStt, model: MoonshineModel, conn_options: APIConnectOptions) -> None:
        super().__init__(stt=owner, conn_options=conn_options, sample_rate=SAMPLE_RATE)
        self._model = model

    async def _run(self) -> None:
        seat = self._model.seat()
        engine = _Engine(seat, self._model.update_interval)
        chunk: list[rtc.AudioFrame] = []
        try:
            async for item in self._input_ch:
                if not isinstance(item, rtc.AudioFrame):
                    continue
                chunk.append(item)
                if sum(frame.samples_per_channel for frame in chunk) < _CHUNK:
                    continue
                audio = rtc.combine_audio_frames(chunk)
                chunk.clear()
                self._post(await seat.thread.run(partial(engine.hear, audio)))
                # After its results, so that they precede the report that this audio is done.
                self._event_ch.send_nowait(_used(audio.duration))
            self._post(await seat.thread.run(engine.finish))
        finally:
            # On the same thread: the engine must be idle before its memory is freed.
            seat.thread.post(engine.close)

    def _post(self, lines: list["_Line"]) -> None:
        for line in lines:
            self._event_ch.send_nowait(line.event(self.start_time_offset))


def _used(seconds: float) -> stt.SpeechEvent:
    return stt.SpeechEvent(
        type=stt.SpeechEventType.RECOGNITION_USAGE, recognition_usage=stt.RecognitionUsage(audio_duration=seconds)
    )


class _Line:
    """A change to a line of the engine."""

    def __init__(self, kind: stt.SpeechEventType, line: Any, began_s: float) -> None:
        self._kind = kind
        self._text = line.text.strip()
        self._id = f"{line.line_id:x}"
        self._start = began_s + line.start_time
        self._end = self._start + line.duration

    def event(self, offset_s: float) -> stt.SpeechEvent:
        spoken = stt.SpeechData(
            language=_ENGLISH,
            text=self._text,
            start_time=self._start + offset_s,
            end_time=self._end + offset_s,
        )
        return stt.SpeechEvent(type=self._kind, request_id=self._id, alternatives=[spoken])


class _Engine:
    """The engine's stream. Every method is called on the seat's thread."""

    def __init__(self, seat: Seat, update_interval: float) -> None:
        self._seat = seat
        self._update_interval = update_interval
        self._stream: Any = None
        self._began = 0
        self._open: set[int] = set()
        self._lines = 0
        self._happened: list[_Line] = []
        self.samples = 0

    def hear(self, audio: rtc.AudioFrame) -> list[_Line]:
        if self._stream is None or (self._lines >= _LINES and not self._open):
            self._renew()
        samples = np.frombuffer(audio.data, dtype=np.int16).astype(np.float32) / 32768.0
        self._stream.add_audio(samples.tolist(), SAMPLE_RATE)
        self.samples += len(samples)
        return self._taken()

    def finish(self) -> list[_Line]:
        if self._stream is not None:
            self._stream.stop()
        return self._taken()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _renew(self) -> None:
        self.close()
        self._began = self.samples
        self._lines = 0
        self._stream = self._seat.load().create_stream(update_interval=self._update_interval)
        self._stream.add_listener(self._listen)
        self._stream.start()

    def _taken(self) -> list[_Line]:
        happened, self._happened = self._happened, []
        return happened

    def _listen(self, event: Any) -> None:
        line = event.line
        if line is None:
            return
        began = self._began / SAMPLE_RATE
        match type(event).__name__:
            case "LineStarted":
                self._open.add(line.line_id)
                self._lines += 1
                self._happened.append(_Line(stt.SpeechEventType.START_OF_SPEECH, line, began))
            case "LineTextChanged" if line.text.strip() and not line.is_complete:
                self._happened.append(_Line(stt.SpeechEventType.INTERIM_TRANSCRIPT, line, began))
            case "LineCompleted":
                self._open.discard(line.line_id)
                if line.text.strip():
                    self._happened.append(_Line(stt.SpeechEventType.FINAL_TRANSCRIPT, line, began))
                self._happened.append(_Line(stt.SpeechEventType.END_OF_SPEECH, line, began))
