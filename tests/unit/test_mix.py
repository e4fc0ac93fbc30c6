"""Two channels of real speech become one that can be heard, whatever their phase."""

import wave
from pathlib import Path

import numpy as np
import pytest
from livekit import rtc
from numpy.typing import NDArray

from relay.capture.audio.frames import mono
from relay.capture.audio.wav import WavSource
from tests.support.livekit.participant import speech_wav

RATE, SAMPLES = 16_000, 512


@pytest.fixture
def voice() -> NDArray[np.int16]:
    with wave.open(str(speech_wav())) as file:
        step = file.getframerate() // RATE
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)[::step]


def mixed(left: NDArray[np.int16], right: NDArray[np.int16]) -> NDArray[np.int16]:
    """What comes out of the frames of a whole track."""
    pairs = np.column_stack([left, right]).astype(np.int16)
    frames = [pairs[at : at + SAMPLES] for at in range(0, len(pairs), SAMPLES)]
    heard = [mono(rtc.AudioFrame(frame.tobytes(), RATE, 2, len(frame))) for frame in frames]
    assert {(frame.sample_rate, frame.num_channels) for frame in heard} == {(RATE, 1)}
    return np.concatenate([np.frombuffer(frame.data, np.int16) for frame in heard])


def loudness(samples: NDArray[np.int16]) -> float:
    return float(np.sqrt(np.mean(np.square(samples.astype(np.float64)))))


def test_a_voice_in_antiphase_is_as_loud_as_it_is(voice: NDArray[np.int16]) -> None:
    assert np.array_equal(mixed(voice, -voice), voice)


def test_the_louder_channel_is_taken_where_the_other_nearly_cancels_it(voice: NDArray[np.int16]) -> None:
    quieter = (-0.8 * voice).astype(np.int16)
    assert loudness(mixed(quieter, voice)) == pytest.approx(loudness(voice), rel=0.01)


def test_ordinary_stereo_is_the_mean_of_both_channels(voice: NDArray[np.int16]) -> None:
    assert np.array_equal(mixed(voice, voice), voice)
    silence = np.zeros_like(voice)
    assert loudness(mixed(voice, silence)) == pytest.approx(loudness(voice) / 2, rel=0.01)
    assert not mixed(silence, silence).any()


def test_the_loudest_samples_do_not_wrap_around() -> None:
    loudest = np.full(SAMPLES, 32_767, np.int16)
    assert np.array_equal(mixed(loudest, loudest), loudest)
    lowest = np.full(SAMPLES, -32_768, np.int16)
    assert np.array_equal(mixed(lowest, lowest), lowest)


def test_one_channel_is_left_as_it_is() -> None:
    frame = rtc.AudioFrame.create(RATE, 1, SAMPLES)
    assert mono(frame) is frame


async def test_a_file_in_antiphase_is_heard(voice: NDArray[np.int16], tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "antiphase.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.column_stack([voice, -voice]).astype(np.int16).tobytes())
    source = WavSource(tmp_path / "antiphase.wav", realtime=False)
    heard = np.concatenate([np.frombuffer(frame.data, np.int16) async for frame in source])
    assert loudness(heard) == pytest.approx(loudness(voice), rel=0.02)
