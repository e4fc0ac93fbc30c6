"""Mixes two channels into one. Pure."""

import numpy as np
from livekit import rtc

CANCELLED = 1 / 16
"""A share of the louder channel's energy. Where the mean of both has less, the channels cancel each other. A voice in
one channel only, the extreme of ordinary stereo, leaves a quarter."""


def mono(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """Return the mean of a frame's two channels, or the louder one in antiphase.

    The mean of channels in antiphase (a microphone wired with inverted polarity, some stereo wideners) would be
    silence. A mono frame is returned as it is.
    """
    if frame.num_channels != 2:
        return frame
    samples = np.frombuffer(frame.data, np.int16)
    left, right = samples[0::2].astype(np.float32), samples[1::2].astype(np.float32)
    mean = (left + right) * np.float32(0.5)
    in_left, in_right = float(left @ left), float(right @ right)
    if float(mean @ mean) < CANCELLED * max(in_left, in_right):
        mean = left if in_left >= in_right else right
    return rtc.AudioFrame(mean.astype(np.int16).tobytes(), frame.sample_rate, 1, len(mean))
