"""Estimates the delay that WebRTC adds to a track's audio."""

from livekit import rtc

PACKET_S = 0.020
"""WebRTC sends Opus in packets of this length, each once it is full."""

PIECE_S = 0.010
"""It delivers audio in pieces of this length, the first of a packet as soon as it is decoded."""

LOOK_AHEAD_S = 0.0065
"""Opus's encoder is behind by this much (``OPUS_GET_LOOKAHEAD``: 312 samples at 48 kHz)."""


class JitterBuffer:
    """Computes from a track's repeated statistics how long WebRTC delays its audio, to correct capture times."""

    def __init__(self) -> None:
        self.absent = 0
        """Consecutive polls at which WebRTC no longer had the track: the server sends none of it to this connection."""
        self._delay_s = 0.0
        self._emitted = 0
        self.behind_s = PACKET_S - PIECE_S + LOOK_AHEAD_S
        """Seconds between the capture and the delivery of audio: the codec's delay plus the buffer's average delay
        between the last two polls. Network transit is not included, since it is unknown here."""

    def look(self, inbound: rtc.stats.InboundRtpStreamStats) -> None:
        """``jitterBufferDelay`` and ``jitterBufferEmittedCount`` of the W3C's webrtc-stats: both only grow, the first
        by each sample's own delay in seconds."""
        self.absent = 0
        emitted = inbound.jitter_buffer_emitted_count - self._emitted
        if emitted > 0:
            held_s = (inbound.jitter_buffer_delay - self._delay_s) / emitted
            self.behind_s = PACKET_S - PIECE_S + LOOK_AHEAD_S + held_s
        self._delay_s, self._emitted = inbound.jitter_buffer_delay, inbound.jitter_buffer_emitted_count
