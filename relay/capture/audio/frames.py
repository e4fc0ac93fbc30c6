"""Frame metadata: position in the stream, capture time, and the audio missing before it."""

from livekit import rtc

from relay.capture.audio.source import SAMPLE_RATE

_KEY = "speech_relay.position"
_HEARD = "speech_relay.heard"
_MISSED = "speech_relay.missed"


def stamp(frame: rtc.AudioFrame, samples: int) -> None:
    """Note on the frame that it starts ``samples`` samples after the stream's first one."""
    frame.userdata[_KEY] = samples


def position(frame: rtc.AudioFrame) -> int | None:
    """The frame's start in samples since the stream's first one; None for audio that LiveKit inserted itself."""
    found = frame.userdata.get(_KEY)
    return found if isinstance(found, int) else None


def heard_from(frame: rtc.AudioFrame, monotonic_s: float) -> None:
    """Note the frame's capture time: the monotonic clock at its first sample, in seconds.

    Do not use the event loop's clock: uvloop updates it once per iteration.
    """
    frame.userdata[_HEARD] = monotonic_s


def age_ms(frame: rtc.AudioFrame, monotonic_s: float) -> int:
    """The age of the frame's first sample at that time; for a frame without a note, its length."""
    heard = frame.userdata.get(_HEARD)
    age_s = monotonic_s - heard if isinstance(heard, float) else frame.duration
    return round(age_s * 1000)


def comes_after_missed(frame: rtc.AudioFrame, ms: int) -> None:
    """Note on the frame how much audio before it was skipped."""
    frame.userdata[_MISSED] = ms


def missed_before(frame: rtc.AudioFrame) -> int:
    """The audio before the frame that was skipped, in milliseconds."""
    found = frame.userdata.get(_MISSED)
    return found if isinstance(found, int) else 0


def to_ms(samples: int) -> int:
    """Convert samples to milliseconds of media."""
    return round(samples * 1000 / SAMPLE_RATE)


def length(frame: rtc.AudioFrame) -> int:
    """The frame's length, in samples at ``SAMPLE_RATE``, whatever its own rate."""
    return frame.samples_per_channel * SAMPLE_RATE // frame.sample_rate
