"""Runs one stream of a speech recognition provider."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from livekit import rtc
from livekit.agents import stt


class SttStream:
    """Puts the provider's events into ``inbox``, and finally how it ended: by an error, or by itself (None).

    A stream that rejects its input has failed, as one that raises by itself.
    """

    def __init__(self, stream: stt.RecognizeStream, inbox: asyncio.Queue[tuple[Any, Any]]) -> None:
        self._stream = stream
        self._inbox = inbox
        self._listening = asyncio.create_task(self._listen(), name="stt_stream")

    @property
    def offset_s(self) -> float:
        """The current media time of its first audio: it moves when the library reconnects."""
        return self._stream.start_time_offset

    @property
    def began_at_s(self) -> float:
        """The wall time of its first audio."""
        return self._stream.start_time

    def begin(self, offset_s: float) -> None:
        """Set where its first audio begins."""
        with self._telling():
            self._stream.start_time_offset = offset_s

    def hear(self, frames: Iterable[rtc.AudioFrame]) -> None:
        with self._telling():
            for frame in frames:
                self._stream.push_frame(frame)

    def end_input(self) -> None:
        """No more audio comes."""
        with self._telling():
            self._stream.end_input()

    def let_go(self) -> asyncio.Task[None]:
        """Abandon it. Its end may hang for an unlimited time, until the task is done."""
        self._listening.cancel()
        return self._listening

    async def _listen(self) -> None:
        error = None
        try:
            async with self._stream as stream:
                async for event in stream:
                    self._inbox.put_nowait((self, event))
        except Exception as raised:
            error = raised
        self._inbox.put_nowait((self, error))

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            pass  # A stream that has just ended takes no more input. Its end is about to be reported.
        except Exception as error:
            self._inbox.put_nowait((self, error))
