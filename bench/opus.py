"""Encodes and decodes a recording with a call's codec, without a network."""

import io
import wave
from pathlib import Path

import av
import numpy as np

from tests.support.audio.speech import write_wav

_RATE = 48_000
"""The sample rate of Opus's input and output."""

# Ogg decoders remove the encoder's own delay (RFC 7845, pre-skip): positions in a file stay unchanged.


def through_opus(source: Path, to: Path, *, kbits: int, later_ms: int = 0) -> Path:
    """The WAV, of 48 kHz mono, encoded and decoded, after this many milliseconds of silence."""
    with wave.open(str(source)) as file:
        assert (file.getframerate(), file.getnchannels()) == (_RATE, 1)
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    said = np.concatenate([np.zeros(later_ms * _RATE // 1000, np.int16), pcm])
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=_RATE)
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate, stream.layout = kbits * 1000, "mono"
        stream.options = {"application": "voip", "frame_duration": "20"}
        frame = av.AudioFrame.from_ndarray(said.reshape(1, -1), "s16", "mono")
        frame.sample_rate = _RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    encoded.seek(0)
    pieces = []
    with av.open(encoded, "r") as played:
        as_pcm = av.AudioResampler("s16", "mono", _RATE)
        for decoded in played.decode(audio=0):
            pieces += [piece.to_ndarray().tobytes() for piece in as_pcm.resample(decoded)]
    return write_wav(to, b"".join(pieces), rate=_RATE)
