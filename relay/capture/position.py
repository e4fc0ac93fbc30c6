"""Where a frame lies in its stream, carried by the frame itself through LiveKit's queues."""

from livekit import rtc

from relay.capture.source import SAMPLE_RATE

_KEY = "speech_relay.position"


def stamp(frame: rtc.AudioFrame, samples: int) -> None:
    """Note on the frame that it starts ``samples`` samples after the stream's first one."""
    frame.userdata[_KEY] = samples


def position(frame: rtc.AudioFrame) -> int | None:
    """The frame's start in samples since the stream's first one; None for audio that LiveKit itself made up."""
    found = frame.userdata.get(_KEY)
    return found if isinstance(found, int) else None


def to_ms(samples: int) -> int:
    """Samples as milliseconds of media."""
    return round(samples * 1000 / SAMPLE_RATE)


def length(frame: rtc.AudioFrame) -> int:
    """How long the frame is, in samples at ``SAMPLE_RATE``, whatever its own rate."""
    return frame.samples_per_channel * SAMPLE_RATE // frame.sample_rate
