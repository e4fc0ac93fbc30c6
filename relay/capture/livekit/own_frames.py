"""The one place that touches a private part of LiveKit's rtc package."""

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient


def only_own_frames(stream: rtc.AudioStream) -> None:
    """Let ``stream``, just made on the running event loop, be woken by the frames of its own track alone.

    An ``rtc.AudioStream`` is handed every frame of every track in the process and picks out its own. That grows with
    the square of the participants: with fifty it is more than a core, and the audio falls ever further behind. LiveKit
    has no public way to narrow it (``AudioStream._ffi_queue`` and ``_is_event``; livekit 1.1.21).
    """
    frames = FfiClient.instance.queue
    everything = stream._ffi_queue  # noqa: SLF001 - see above; tests/contract/test_own_frames.py names it
    stream._ffi_queue = frames.subscribe(filter_fn=stream._is_event)  # noqa: SLF001 - see above
    frames.unsubscribe(everything)
