"""Where a frame lies in its stream, when it was heard and what is missing before it, carried by the frame itself."""

from livekit import rtc

from relay.capture.audio.source import SAMPLE_RATE

_KEY = "speech_relay.position"
_HEARD = "speech_relay.heard"
_MISSED = "speech_relay.missed"


def stamp(frame: rtc.AudioFrame, samples: int) -> None:
    """Note on the frame that it starts ``samples`` samples after the stream's first one."""
    frame.userdata[_KEY] = samples


def position(frame: rtc.AudioFrame) -> int | None:
    """The frame's start in samples since the stream's first one; None for audio that LiveKit itself made up."""
    found = frame.userdata.get(_KEY)
    return found if isinstance(found, int) else None


def heard_from(frame: rtc.AudioFrame, monotonic_s: float) -> None:
    """Note on the frame that its first sample was heard at this time of the monotonic clock, in seconds.

    Not of the event loop's: uvloop looks at the clock once a turn.
    """
    frame.userdata[_HEARD] = monotonic_s


def age_ms(frame: rtc.AudioFrame, monotonic_s: float) -> int:
    """How long ago, at that time, its first sample was heard; of a frame that bears no note, its length."""
    heard = frame.userdata.get(_HEARD)
    age_s = monotonic_s - heard if isinstance(heard, float) else frame.duration
    return round(age_s * 1000)


def comes_after_missed(frame: rtc.AudioFrame, ms: int) -> None:
    """Note on the frame that so much audio came before it and was passed over."""
    frame.userdata[_MISSED] = ms


def missed_before(frame: rtc.AudioFrame) -> int:
    """How much audio came before it and was passed over, in milliseconds."""
    found = frame.userdata.get(_MISSED)
    return found if isinstance(found, int) else 0


def to_ms(samples: int) -> int:
    """Samples as milliseconds of media."""
    return round(samples * 1000 / SAMPLE_RATE)


def length(frame: rtc.AudioFrame) -> int:
    """How long the frame is, in samples at ``SAMPLE_RATE``, whatever its own rate."""
    return frame.samples_per_channel * SAMPLE_RATE // frame.sample_rate
