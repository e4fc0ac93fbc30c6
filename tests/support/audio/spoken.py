"""Speech with known starts and ends, published in a room at known wall times."""

import asyncio
import random
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from livekit import rtc

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.audio.wav import WavSource
from relay.clock import SystemClock
from tests.support.audio.speech import speech, write_wav
from tests.support.livekit.livekit_server import LiveKitServer

PHRASES_MS = ((5040, 6160), (6690, 8160), (8820, 10270), (13490, 14740), (17570, 18710), (24660, 25960), (36980, 38320))
"""Where two_cities.wav is louder than RMS 150, without a quieter stretch of 250 ms inside."""

TICK_MS = 10
"""WebRTC's own frame: the length that a microphone delivers at a time."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """The place of speech in a file, in milliseconds."""

    start_ms: int
    end_ms: int


def script(utterances: int) -> list[tuple[Spoken, Spoken]]:
    """Each utterance's place in the generated file, and in the recording that it is cut from. The silences between them
    are 0.8 to 2 s long, the same in every run."""
    dice, at, lines = random.Random(5), 1000, []
    for index in range(utterances):
        start, end = PHRASES_MS[index % len(PHRASES_MS)]
        lines.append((Spoken(at, at + end - start), Spoken(start, end)))
        at += end - start + dice.randrange(800, 2000)
    return lines


async def write(path: Path, rate: int, lines: Sequence[tuple[Spoken, Spoken]], *, fade_ms: int = 0) -> Path:
    """The utterances of a script and digital silence between them, as a WAV of that rate: 16 or 48 kHz.

    With ``fade_ms`` this much more of the recording surrounds each, faded in and out, as a voice in a room does.
    Without, each begins and ends within a sample, as behind a noise gate.
    """
    with wave.open(str(speech("two_cities.wav"))) as file:
        pcm, source_rate = file.readframes(file.getnframes()), file.getframerate()
    if rate == SAMPLE_RATE:
        frames = [frame async for frame in WavSource(speech("two_cities.wav"), realtime=False)]
        pcm, source_rate = b"".join(bytes(frame.data) for frame in frames), rate
    assert rate == source_rate
    recorded = np.frombuffer(pcm, np.int16)
    made = np.zeros(rate * (lines[-1][0].end_ms + 1500) // 1000, np.int16)
    fade = rate * fade_ms // 1000
    rising = (1 - np.cos(np.pi * np.arange(fade) / max(1, fade))) / 2
    for place, cut in lines:
        begin, end, at = (rate * ms // 1000 for ms in (cut.start_ms, cut.end_ms, place.start_ms))
        loudness = np.concatenate([rising, np.ones(end - begin), rising[::-1]])
        made[at - fade : at + end - begin + fade] = recorded[begin - fade : end + fade] * loudness
    return write_wav(path, made.tobytes(), rate=rate)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a participant speaks.

    ``pace`` is their microphone's clock relative to the wall clock; ``muted`` are milliseconds of the file; at
    ``gap_ms`` the microphone delivers nothing for ``gap_for_ms``, and then continues where it was; ``shaky_ms`` is the
    maximum random delay of a frame to WebRTC.
    """

    name: str
    rate: int
    pace: float = 1.0
    muted: Spoken | None = None
    gap_ms: int | None = None
    gap_for_ms: int = 0
    shaky_ms: int = 0


class Speaker:
    """Publishes a WAV in a room. It catches up after a delay: its microphone's clock decides, so that the wall time of
    every sample is known."""

    def __init__(self, server: LiveKitServer, room: str, wav: Path, manner: Manner) -> None:
        with wave.open(str(wav)) as file:
            self._pcm = file.readframes(file.getnframes())
        self.manner = manner
        self._server, self._room_name = server, room
        self._room = rtc.Room()
        # No queue: a frame goes to WebRTC when it is captured.
        self._source = rtc.AudioSource(manner.rate, 1, queue_size_ms=0)
        self._track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        self._began_wall = 0.0
        self.latest_ms = 0.0
        """The largest unintended delay of a frame's capture."""

    async def join(self) -> None:
        token = self._server.token(self.manner.name, self._room_name)
        await self._room.connect(self._server.url, token, rtc.RoomOptions(auto_subscribe=False))

    def wall(self, media_ms: float) -> float:
        """Epoch milliseconds at which this place of the file was published."""
        manner = self.manner
        paused = manner.gap_for_ms if manner.gap_ms is not None and media_ms >= manner.gap_ms else 0
        return self._began_wall + media_ms / manner.pace + paused

    def muted(self, said: Spoken) -> bool:
        """Whether the microphone is muted at any moment of it."""
        muted = self.manner.muted
        return muted is not None and said.end_ms > muted.start_ms and said.start_ms < muted.end_ms

    async def speak(self, *, after_s: float = 0.0) -> None:
        """Publish, play everything, and leave."""
        await asyncio.sleep(after_s)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(self._track, options)
        loop = asyncio.get_running_loop()
        self._began_wall, began = SystemClock().now_ms(), loop.time()
        length, dice, muted = self.manner.rate * TICK_MS // 1000, random.Random(7), self.manner.muted
        for tick in range(len(self._pcm) // (2 * length)):
            if muted is not None and tick * TICK_MS == muted.start_ms:
                self._track.mute()
            if muted is not None and tick * TICK_MS == muted.end_ms:
                self._track.unmute()
            # A frame is available once its end was spoken.
            due = began + (self.wall(tick * TICK_MS) - self._began_wall + TICK_MS / self.manner.pace) / 1000
            due += dice.uniform(0, self.manner.shaky_ms) / 1000
            await asyncio.sleep(due - loop.time())
            self.latest_ms = max(self.latest_ms, (loop.time() - due) * 1000)
            samples = self._pcm[2 * tick * length : 2 * (tick + 1) * length]
            await self._source.capture_frame(rtc.AudioFrame(samples, self.manner.rate, 1, length))
        await self._room.disconnect()
        await self._source.aclose()
