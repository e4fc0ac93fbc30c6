"""How much older than its arrival the audio of a track is: what WebRTC does to it on the way."""

from livekit import rtc

PACKET_S = 0.020
"""WebRTC sends Opus in packets of this length, each once it is full."""

PIECE_S = 0.010
"""And gives it in pieces of this length, the first of a packet as soon as it is decoded."""

LOOK_AHEAD_S = 0.0065
"""Opus's encoder is behind by this much (``OPUS_GET_LOOKAHEAD``: 312 samples at 48 kHz)."""


class JitterBuffer:
    """Reads off a track's statistics, taken again and again, for how long WebRTC holds its audio back, so that what
    comes late does not come too late."""

    def __init__(self) -> None:
        self.absent = 0
        """Looks in a row at which WebRTC no longer had the track: the server sends nothing of it to this connection."""
        self._delay_s = 0.0
        self._emitted = 0
        self.behind_s = PACKET_S - PIECE_S + LOOK_AHEAD_S
        """Seconds between the moment that audio was captured and the one that it was given: what the codec takes, and
        the delay of what came out of the buffer between the last two looks, on average. Without the way over the
        network, which nobody here can know."""

    def look(self, inbound: rtc.stats.InboundRtpStreamStats) -> None:
        """``jitterBufferDelay`` and ``jitterBufferEmittedCount`` of the W3C's webrtc-stats: both only ever grow, the
        first by each sample's own delay in seconds."""
        self.absent = 0
        emitted = inbound.jitter_buffer_emitted_count - self._emitted
        if emitted > 0:
            held_s = (inbound.jitter_buffer_delay - self._delay_s) / emitted
            self.behind_s = PACKET_S - PIECE_S + LOOK_AHEAD_S + held_s
        self._delay_s, self._emitted = inbound.jitter_buffer_delay, inbound.jitter_buffer_emitted_count
