"""Routes audio frames to their streams, using private parts of LiveKit's rtc package."""

import contextlib
import time
from collections import deque
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient

# ruff: noqa: SLF001 - AudioStream's _ffi_handle, _ffi_queue, _queue and _loop (livekit 1.1.21): no public API does this;
# tests/contract/test_frame_router.py names it


class FrameRouter:
    """The frames of ``stream``, created on the running event loop, each with its arrival time.

    Arrival times are seconds of the monotonic clock. Only these frames wake ``stream``. A plain ``rtc.AudioStream``
    gets every frame of every track in the process and selects its own. That cost grows with the square of the
    participants: with fifty it exceeds one core, and the audio falls further and further behind. LiveKit has no public
    way to narrow it, and none to get a frame's arrival time: a busy event loop sees the frame later.
    """

    def __init__(self, stream: rtc.AudioStream) -> None:
        self._stream = stream
        self._came: deque[float] = deque()
        # a new queue: a frame may still be on its way into the former one
        everything, stream._ffi_queue = stream._ffi_queue, type(stream._ffi_queue)()
        FfiClient.instance.queue.unsubscribe(everything)
        _post_office().deliver_to(stream._ffi_handle.handle, self)

    @property
    def waiting(self) -> int:
        """The number of frames that arrived and were not taken."""
        return len(self._came)

    def deliver(self, event: Any) -> None:
        """Called on LiveKit's own threads."""
        if event.audio_stream_event.HasField("frame_received"):
            self._came.append(time.monotonic())
        with contextlib.suppress(RuntimeError):  # its event loop is closed
            self._stream._loop.call_soon_threadsafe(self._stream._ffi_queue.put_nowait, event)

    def __aiter__(self) -> "FrameRouter":
        return self

    async def __anext__(self) -> tuple[rtc.AudioFrame, float]:
        # not the stream's own iterator: once its track ends, it drops its queue, which holds a leaving participant's
        # last word
        event = await self._stream._queue.get()
        if event is None:
            raise StopAsyncIteration
        return event.frame, self._came.popleft()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _PostOffice:
    """Finds a frame's stream by its handle: with a filter per stream, every filter would run for each frame."""

    def __init__(self) -> None:
        self._receivers: WeakValueDictionary[int, FrameRouter] = WeakValueDictionary()

    def deliver_to(self, number: int, receiver: FrameRouter) -> None:
        self._receivers[number] = receiver

    def __call__(self, event: Any) -> bool:
        """Subscribed as a filter that every frame passes through; nothing reads its output."""
        if (receiver := self._receivers.get(event.audio_stream_event.stream_handle)) is not None:
            receiver.deliver(event)
        return False


@cache
def _post_office() -> _PostOffice:
    """One per process: jobs are forked before it is made."""
    office = _PostOffice()
    FfiClient.instance.queue.subscribe(filter_fn=office)
    return office
