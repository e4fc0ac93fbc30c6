"""The one place that touches a private part of LiveKit's rtc package."""

import contextlib
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient


def only_own_frames(stream: rtc.AudioStream) -> None:
    """Let ``stream``, just made on the running event loop, be woken by the frames of its own track alone.

    An ``rtc.AudioStream`` is handed every frame of every track in the process and picks out its own. That grows with
    the square of the participants: with fifty it is more than a core, and the audio falls ever further behind. LiveKit
    has no public way to narrow it (``AudioStream._ffi_queue``, ``_ffi_handle`` and ``_loop``; livekit 1.1.21).
    """
    FfiClient.instance.queue.unsubscribe(stream._ffi_queue)  # noqa: SLF001 - see above; its test names it
    _post_office().deliver_to(stream)


class _PostOffice:
    """Hands each frame to its stream, found by the number on it: a filter per stream would all be asked for each."""

    def __init__(self) -> None:
        self._streams: WeakValueDictionary[int, rtc.AudioStream] = WeakValueDictionary()

    def deliver_to(self, stream: rtc.AudioStream) -> None:
        self._streams[stream._ffi_handle.handle] = stream  # noqa: SLF001 - see above

    def __call__(self, event: Any) -> bool:
        """Called as a filter, on LiveKit's own threads; nobody reads what it lets through."""
        stream = self._streams.get(event.audio_stream_event.stream_handle)
        if stream is not None:
            with contextlib.suppress(RuntimeError):  # its event loop is closed
                stream._loop.call_soon_threadsafe(stream._ffi_queue.put_nowait, event)  # noqa: SLF001 - see above
        return False


@cache
def _post_office() -> _PostOffice:
    """One for the process: jobs are forked before it is made."""
    office = _PostOffice()
    FfiClient.instance.queue.subscribe(filter_fn=office)
    return office
