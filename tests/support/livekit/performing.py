"""Performs a script in a real LiveKit room, with participants that publish WAV files."""

import asyncio
import contextlib
import time
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from livekit import api, rtc

from tests.support.audio.conversation import Does, Says, Script, tracks
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import Participant, speech_wav

_BEFORE_MS, _AFTER_MS = 200, 300
"""The recording's own silence around a phrase."""

_CHUNK_S = 0.04

_AHEAD_MS = 1_000
"""Audio that is handed over before it is due. Otherwise a busy machine would break words apart."""


@dataclass
class Performance:
    began_s: float = 0.0
    """Wall time at which the script began, in epoch seconds."""
    late_ms: dict[tuple[str, int], int] = field(default_factory=dict)
    """How late a participant was with the speech at (who, milliseconds since the beginning)."""
    numbers: dict[str, int] = field(default_factory=dict)
    """A track sid's number among its participant's tracks: 0 for the first."""

    def now_s(self) -> float:
        return time.time() - self.began_s


def write_part(path: Path, says: Iterable[Says], recording: str, length_s: float) -> None:
    """One participant's part of a script, with silence around its phrases: its place in the file gives its time."""
    with wave.open(str(speech_wav(recording)), "rb") as file:
        rate, spoken = file.getframerate(), file.readframes(file.getnframes())
    part = bytearray(round(length_s * rate) * 2)
    for each in says:
        assert each.phrase.recording == recording
        begin, length = each.phrase.onset_ms - _BEFORE_MS, _BEFORE_MS + each.end_ms - each.start_ms + _AFTER_MS
        at, size = (each.start_ms - _BEFORE_MS) * rate // 1000 * 2, length * rate // 1000 * 2
        part[at : at + size] = spoken[begin * rate // 1000 * 2 :][:size]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(part)


class Voice:
    """A published track on which a part is spoken by the performance's clock. Where the machine was too busy to keep
    time, silences are shortened, words are not, and the delay is recorded."""

    def __init__(self, who: str, wav: Path, says: Iterable[Says], performance: Performance) -> None:
        with wave.open(str(wav), "rb") as file:
            self._rate, self._part = file.getframerate(), file.readframes(file.getnframes())
        self._who = who
        self._onsets = [each.start_ms for each in says]
        self._performance = performance
        self._source = rtc.AudioSource(self._rate, 1, queue_size_ms=_AHEAD_MS)
        self.track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)

    async def speak(self) -> None:
        """From what is due now to the end of the part."""
        samples = round(self._rate * _CHUNK_S)
        silence = bytes(samples * 2)
        position = round(max(0.0, self._performance.now_s()) * self._rate)
        while position * 2 < len(self._part):
            chunk = self._part[position * 2 : (position + samples) * 2].ljust(samples * 2, b"\0")
            late_s = self._performance.now_s() + self._source.queued_duration - position / self._rate
            if chunk != silence or late_s < _CHUNK_S:
                await self._source.capture_frame(rtc.AudioFrame(chunk, self._rate, 1, samples))
            begin, end = position * 1000 // self._rate, (position + samples) * 1000 // self._rate
            for onset in self._onsets:
                if begin <= onset < end:
                    self._performance.late_ms[self._who, onset] = round(late_s * 1000)
            position += samples

    async def aclose(self) -> None:
        await self._source.aclose()


class _Player:
    """One of the cast, with a voice for each of their tracks."""

    def __init__(self, who: str, script: Script, performance: Performance, voices: Iterable[Voice]) -> None:
        self._who = who
        self._script = script
        self._performance = performance
        self._voices = list(voices)
        self._tracks = 0

    async def join(self, server: LiveKitServer, room: str, kind: str | None) -> None:
        self._there = server, room, kind
        self._participant = Participant(server, self._who, room, kind=kind)
        await self._participant.join()

    async def publish(self) -> None:
        self._voice = self._voices[self._tracks]
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        published = await self._participant.room.local_participant.publish_track(self._voice.track, options)
        self._sid = published.sid
        self._performance.numbers[published.sid] = self._tracks
        self._tracks += 1
        self._speaking = asyncio.create_task(self._voice.speak())

    async def hush(self) -> None:
        self._speaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._speaking
        await self._voice.aclose()

    async def leave(self) -> None:
        await self._participant.leave()
        await self.hush()

    async def play(self) -> None:
        for line in self._script.of(self._who):
            if isinstance(line, Does):
                await asyncio.sleep(line.at_s - self._performance.now_s())
                await self._do(line)

    async def _do(self, line: Does) -> None:
        match line.what:
            case "mutes":
                self._voice.track.mute()
            case "unmutes":
                self._voice.track.unmute()
            case "leaves":
                await self.leave()
            case "returns":
                await self.join(*self._there)
                await self.publish()
            case "changes track":
                await self._participant.room.local_participant.unpublish_track(self._sid)
                await self.hush()
                await self.publish()


async def perform(
    script: Script, recordings: Mapping[str, str], server: LiveKitServer, room: str, folder: Path, *, by_phone: str
) -> Performance:
    """Perform it, until the room is closed."""
    performance = Performance()
    voices: dict[str, list[Voice]] = {who: [] for who in script.cast}
    for track in tracks(script):
        lines = (line for line in script.of(track.who) if isinstance(line, Says))
        says = [line for line in lines if track.from_ms <= line.start_ms < track.until_ms]
        wav = folder / f"{track.who}-{track.number}.wav"
        write_part(wav, says, recordings[track.who], script.end_s)
        voices[track.who].append(Voice(track.who, wav, says, performance))
    players = {who: _Player(who, script, performance, theirs) for who, theirs in voices.items()}
    async with contextlib.AsyncExitStack() as stack:
        for who, player in players.items():
            await player.join(server, room, "sip" if who == by_phone else None)
        performance.began_s = time.time()
        for player in players.values():
            await player.publish()
            stack.push_async_callback(player.leave)
        async with asyncio.TaskGroup() as playing:
            for player in players.values():
                playing.create_task(player.play())
        await asyncio.sleep(script.end_s - performance.now_s())
        async with server.api() as client:
            await client.room.delete_room(api.DeleteRoomRequest(room=room))
    return performance
