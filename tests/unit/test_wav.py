"""A sound file as a source: any WAV in, 16 kHz mono frames out, and one clear line for what is no sound file."""

import asyncio
import math
import struct
import wave
from itertools import pairwise
from pathlib import Path

import pytest

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.audio.wav import WavSource
from relay.errors import AudioError
from tests.support.audio.speech import speech, write_wav


async def heard(source: WavSource) -> list[int]:
    samples: list[int] = []
    async for frame in source:
        assert (frame.sample_rate, frame.num_channels) == (SAMPLE_RATE, 1)
        samples += frame.data.tolist()
    return samples


def tone(rate: int, seconds: float = 1.0, level: float = 0.5) -> list[float]:
    return [level * math.sin(2 * math.pi * 440 * n / rate) for n in range(int(rate * seconds))]


def pcm(values: list[float], width: int) -> bytes:
    match width:
        case 1:
            return bytes(int(value * 127) + 128 for value in values)
        case 3:
            return b"".join(int(value * (2**23 - 1)).to_bytes(3, "little", signed=True) for value in values)
        case _:
            top = 2 ** (8 * width - 1) - 1
            return struct.pack(f"<{len(values)}{'h' if width == 2 else 'i'}", *(int(value * top) for value in values))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
async def test_every_width_and_rate_sounds_the_same(tmp_path: Path, width: int, rate: int) -> None:
    file = write_wav(tmp_path / "tone.wav", pcm(tone(rate), width), rate=rate, width=width)

    samples = await heard(WavSource(file, realtime=False))

    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=SAMPLE_RATE * 0.01)
    middle = samples[4_000:12_000]
    assert math.sqrt(sum(x * x for x in middle) / len(middle)) == pytest.approx(0.5 / math.sqrt(2) * 32767, rel=0.03)
    crossings = sum(a < 0 <= b for a, b in pairwise(middle))
    assert crossings == pytest.approx(220, abs=2)


async def test_float_samples(tmp_path: Path) -> None:
    values = tone(SAMPLE_RATE)
    data = struct.pack(f"<{len(values)}f", *values)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, SAMPLE_RATE,
                         SAMPLE_RATE * 4, 4, 32, b"data", len(data))  # fmt: skip
    file = tmp_path / "float.wav"
    file.write_bytes(header + data)

    samples = await heard(WavSource(file, realtime=False))

    assert len(samples) == SAMPLE_RATE
    assert max(samples) == pytest.approx(0.5 * 32767, rel=0.02)


async def test_stereo_at_another_rate_is_what_mono_is(tmp_path: Path) -> None:
    left_right = [value for value in tone(44_100) for _ in range(2)]
    stereo = write_wav(tmp_path / "stereo.wav", pcm(left_right, 2), rate=44_100, channels=2)
    mono = write_wav(tmp_path / "mono.wav", pcm(tone(44_100), 2), rate=44_100)

    a, b = await heard(WavSource(stereo, realtime=False)), await heard(WavSource(mono, realtime=False))

    assert len(a) == len(b)
    assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 330  # 1 % of full scale


async def test_nothing_is_lost_or_added() -> None:
    with wave.open(str(speech("beckett.wav"))) as file:
        original = file.readframes(file.getnframes())

    samples = await heard(WavSource(speech("beckett.wav"), realtime=False))

    assert struct.pack(f"<{len(samples)}h", *samples) == original


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such file"),
        (b"", "cannot be read as audio"),
        (b"Ever tried. Ever failed. No matter.\n" * 50, "audio"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio"),
    ],
)
def test_what_is_no_audio_is_one_clear_error(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "speech.wav"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(AudioError) as raised:
        WavSource(file)

    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert says in message
    assert "\n" not in message


def test_a_file_without_a_single_sample(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="there is no audio in it"):
        WavSource(write_wav(tmp_path / "empty.wav", b""))


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot be read as audio"):
        WavSource(tmp_path)


async def test_real_time_takes_its_time(tmp_path: Path) -> None:
    file = write_wav(tmp_path / "short.wav", bytes(2 * SAMPLE_RATE // 5))
    loop = asyncio.get_running_loop()
    began = loop.time()

    arrivals = [loop.time() - began async for _ in WavSource(file, realtime=True)]

    assert len(arrivals) == 10
    for number, arrival in enumerate(arrivals, 1):
        assert arrival >= 0.02 * number - 0.002


async def test_closing_ends_the_iteration_at_once(tmp_path: Path) -> None:
    source = WavSource(write_wav(tmp_path / "long.wav", bytes(2 * SAMPLE_RATE * 60)), realtime=True)
    first = asyncio.Event()

    async def listen() -> None:
        async for _ in source:
            first.set()

    listener = asyncio.create_task(listen())
    await first.wait()

    await source.aclose()
    await source.aclose()

    async with asyncio.timeout(30):
        await listener
