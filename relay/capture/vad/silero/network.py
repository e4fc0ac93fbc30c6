"""Silero's network, run once for everybody who has audio to be looked at.

One run for eight people takes half the time of eight runs, and is one visit to another thread in place of eight, each
of which costs as much again: it finds the caches cold.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.inference_thread import Runners
from relay.capture.vad.silero.plugin import Session

WINDOW = 512
"""Samples that the network looks at in one go: 32 ms."""
GATHER_S = 0.016
"""How long a window waits for others', if there are others: half its length. Its time in the audio is its own."""
HUNG_AFTER_S = 4.0
"""A run takes a few milliseconds, on a machine that is far too busy some hundred. Less than the watchdog waits for an
answer (5 s), so that a stream that it has started again finds a thread that works."""
_CONTEXT = 64
"""Samples before a window that it sees again."""
_MOST = 64

Floats = NDArray[np.float32]


class Memory:
    """What the network remembers of one voice. Touched by the network's thread alone."""

    __slots__ = ("context", "state")

    context: Floats
    state: Floats

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.context = np.zeros(_CONTEXT, np.float32)
        self.state = np.zeros((2, 1, 128), np.float32)


Tell = Callable[[float | Exception], None]
"""Takes the probability of speech in one window, unsmoothed, or what went wrong."""


class _Look(NamedTuple):
    anew: bool
    window: Floats
    tell: Tell


class Network:
    """Answers ``look`` in the order in which each memory was looked with, on the event loop that it was asked on.

    A run that hangs is an error for those whose windows are in it. The others' are looked at on another thread, which
    the session allows.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._threads = Runners("silero", HUNG_AFTER_S)
        self._waiting: dict[Memory, deque[_Look]] = {}
        """Windows that wait, by voice. A voice goes to the end after its turn."""
        self._busy = False
        """Running, or about to."""
        self._latest: Memory | None = None
        """Whose window came last."""

    def look(self, memory: Memory, window: Floats, tell: Tell, *, anew: bool = False) -> None:
        """Have ``WINDOW`` samples from -1 to 1 looked at.

        ``anew``: what is remembered is of other audio, and is forgotten first.
        """
        self._waiting.setdefault(memory, deque()).append(_Look(anew, window, tell))
        alone, self._latest = memory is self._latest, memory
        if self._busy:
            return
        self._busy = True
        if alone:
            self._start()
        else:
            asyncio.get_running_loop().call_later(GATHER_S, self._start)

    def forget(self, memory: Memory) -> None:
        """Look at nothing more with it."""
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
        """What is waiting, one look of each memory: the next one needs what this one leaves in it."""
        batch = {}
        for memory in list(islice(self._waiting, _MOST)):
            looks = self._waiting.pop(memory)
            batch[memory] = looks.popleft()
            if looks:
                self._waiting[memory] = looks
        return batch

    def _run(self, batch: Mapping[Memory, _Look]) -> list[float]:
        for memory, look in batch.items():
            if look.anew:
                memory.clear()
        seen = np.stack([np.concatenate((memory.context, look.window)) for memory, look in batch.items()])
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
            # What they remember is not what they should, and a thread that hangs may still write to it.
            for memory in batch:
                self.forget(memory)
        self._start()
        for look, answer in zip(batch.values(), answers, strict=True):
            look.tell(answer)
