"""Runs Silero's network, taken from LiveKit's plugin, once for all streams that have audio to process.

One run for eight voices takes half the time of eight runs, and is one switch to another thread in place of eight, each
of which costs as much again because the caches are cold.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from livekit.agents import vad
from numpy.typing import NDArray

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.inference_thread import Runners


class Session(Protocol):
    """The used part of an ``onnxruntime.InferenceSession``."""

    def run(self, output_names: None, input_feed: dict[str, Any]) -> list[Any]:
        """Every output for these inputs. Blocking, without the interpreter lock."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The plugin's options of the same meaning: probabilities, and seconds."""

    activation: float
    deactivation: float
    min_speech_s: float
    min_silence_s: float


def parts(detector: vad.VAD) -> tuple[Session, Thresholds] | None:
    """The network of a ``silero.VAD`` and its thresholds, which are private to it. None where these differ from the
    plugin's version 1.8, or the sample rate differs: then the plugin's own streams are used."""
    # by name: the import alone would load onnxruntime into a process that uses another detector
    if f"{type(detector).__module__}.{type(detector).__qualname__}" != "livekit.plugins.silero.vad.VAD":
        return None
    try:
        options, session = vars(detector)["_opts"], vars(detector)["_onnx_session"]
        thresholds = Thresholds(
            activation=options.activation_threshold,
            deactivation=options.deactivation_threshold,
            min_speech_s=options.min_speech_duration,
            min_silence_s=options.min_silence_duration,
        )
        shapes = {put.name: len(put.shape) for put in session.get_inputs()}
        known = options.sample_rate == SAMPLE_RATE and shapes == {"input": 2, "state": 3, "sr": 0}
    except (AttributeError, KeyError):
        return None
    return (session, thresholds) if known else None


WINDOW = 512
"""Samples that the network processes at once: 32 ms."""
WINDOW_BYTES = WINDOW * 2
GATHER_S = 0.016
"""How long a window waits for others, if there are others: half its length. Its time in the audio does not change."""
HUNG_AFTER_S = 4.0
"""A run takes a few milliseconds, on an overloaded machine some hundred. Less than the watchdog waits for an answer (5
s), so that a stream that it has restarted finds a working thread."""
_CONTEXT = 64
"""Samples before a window that are part of its input again."""
_LOUDEST = np.float32(np.iinfo(np.int16).max)
"""Divides samples into the network's range: the plugin's figure."""
_MOST = 64

Floats = NDArray[np.float32]


class Memory:
    """The network's state for one voice. Used by the network's thread only."""

    __slots__ = ("context", "state")

    context: Floats
    state: Floats

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.context = np.zeros(_CONTEXT, np.float32)
        self.state = np.zeros((2, 1, 128), np.float32)


OnAnswer = Callable[[float | Exception], None]
"""Takes the probability of speech in one window, unsmoothed, or the error."""


class _Look(NamedTuple):
    reset: bool
    window: bytes
    on_answer: OnAnswer


class Network:
    """Answers ``look`` calls in order per memory, on the event loop of the caller.

    A run that hangs is an error for the voices whose windows are in it. The others' windows run on another thread,
    which the session allows.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._threads = Runners("silero", HUNG_AFTER_S)
        self._waiting: dict[Memory, deque[_Look]] = {}
        """Waiting windows, by voice. A voice goes to the end of the queue after its turn."""
        self._busy = False
        """Running, or about to."""
        self._latest: Memory | None = None
        """The voice whose window came last."""

    def look(self, memory: Memory, window: bytes, on_answer: OnAnswer, *, reset: bool = False) -> None:
        """Process ``WINDOW`` samples of 16 bits.

        ``reset``: the memory belongs to other audio, and is reset first.
        """
        self._waiting.setdefault(memory, deque()).append(_Look(reset, window, on_answer))
        alone, self._latest = memory is self._latest, memory
        if self._busy:
            return
        self._busy = True
        if alone:
            self._start()
        else:
            asyncio.get_running_loop().call_later(GATHER_S, self._start)

    def forget(self, memory: Memory) -> None:
        """Process nothing more with this memory."""
        self._waiting.pop(memory, None)

    def close(self) -> None:
        """Answer nothing more."""
        self._waiting.clear()
        self._threads.close()

    def _start(self) -> None:
        batch = self._batch()
        self._busy = bool(batch)
        if batch:
            running = self._threads.current.run(partial(self._run, batch))
            running.add_done_callback(partial(self._done, batch))

    def _batch(self) -> dict[Memory, _Look]:
        """The waiting windows, one per memory: the next one needs the state that this one leaves."""
        batch = {}
        for memory in list(islice(self._waiting, _MOST)):
            looks = self._waiting.pop(memory)
            batch[memory] = looks.popleft()
            if looks:
                self._waiting[memory] = looks
        return batch

    def _run(self, batch: Mapping[Memory, _Look]) -> list[float]:
        for memory, look in batch.items():
            if look.reset:
                memory.clear()
        # Not on the event loop: for so many samples numpy gives up the interpreter lock, and the loop waits for it.
        samples = np.frombuffer(b"".join(look.window for look in batch.values()), np.int16).reshape(len(batch), WINDOW)
        windows = samples.astype(np.float32) / _LOUDEST
        seen = np.concatenate((np.stack([memory.context for memory in batch]), windows), axis=1)
        states = np.concatenate([memory.state for memory in batch], axis=1)
        found, states = self._session.run(
            None, {"input": seen, "state": states, "sr": np.array(SAMPLE_RATE, dtype=np.int64)}
        )
        for n, memory in enumerate(batch):
            memory.context = seen[n, -_CONTEXT:]
            memory.state = states[:, n : n + 1]
        return [float(probability) for probability in found[:, 0]]

    def _done(self, batch: Mapping[Memory, _Look], run: asyncio.Future[list[float]]) -> None:
        if run.cancelled():
            return
        answers: Sequence[float | Exception]
        if (error := run.exception()) is None:
            answers = run.result()
        else:
            answers = [RuntimeError(f"Silero's network failed: {error}")] * len(batch)
            # The memories are invalid, and a hung thread may still write to them.
            for memory in batch:
                self.forget(memory)
        self._start()
        for look, answer in zip(batch.values(), answers, strict=True):
            look.on_answer(answer)
