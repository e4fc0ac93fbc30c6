"""A LiveKit participant that publishes a WAV in real time and records its actions."""

import asyncio
import contextlib
import importlib.util
import time
import wave
from collections.abc import AsyncIterator
from pathlib import Path

from livekit import rtc

from tests.support.livekit.livekit_server import LiveKitServer


def speech_wav(name: str = "beckett") -> Path:
    """English speech from the moonshine-voice wheel: ``beckett`` (10 s) or ``two_cities`` (44 s), 16-bit mono."""
    found = importlib.util.find_spec("moonshine_voice")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / f"assets/{name}.wav"


_FRAME_S = 0.05
"""WebRTC sends 10 ms at a time whatever it is given. Frames as short cost the test twice the processor time."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Microphone:
    """One published track. ``wav`` None publishes silence. Audio flows from the moment of publishing."""

    def __init__(self, wav: Path | None, *, start_s: float, loop: bool) -> None:
        if wav is None:
            self._rate, self._pcm = 48_000, b""
        else:
            with wave.open(str(wav), "rb") as file:
                assert (file.getnchannels(), file.getsampwidth()) == (1, 2), "16-bit mono WAV expected"
                self._rate, self._pcm = file.getframerate(), file.readframes(file.getnframes())
        self._loop = loop
        self._position = int(start_s * self._rate) * 2
        self._source = rtc.AudioSource(self._rate, 1, queue_size_ms=100)
        self.track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        self.sid = ""
        self.finished = asyncio.Event()
        """Set when the whole WAV was published (silence follows)."""
        self._task: asyncio.Task[None] | None = None

    def start(self, sid: str) -> None:
        self.sid = sid
        self._task = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        samples = round(self._rate * _FRAME_S)
        while True:
            chunk = self._pcm[self._position : self._position + samples * 2]
            self._position += len(chunk)
            if len(chunk) < samples * 2:
                chunk = chunk.ljust(samples * 2, b"\0")
                if self._loop:
                    self._position = 0
                else:
                    self.finished.set()
            # the source takes frames no faster than they are due, which makes this loop real time
            await self._source.capture_frame(rtc.AudioFrame(chunk, self._rate, 1, samples))

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._source.aclose()


class Participant:
    """Joins a room and publishes. ``did`` holds (action, wall time in epoch ms) in order."""

    def __init__(
        self, server: LiveKitServer, identity: str, room: str, *, kind: str | None = None, name: str | None = None
    ) -> None:
        self.identity = identity
        self.room = rtc.Room()
        self.did: list[tuple[str, int]] = []
        self._server = server
        self._token = server.token(identity, room, kind=kind, name=name)
        self._microphones: dict[str, Microphone] = {}

    @property
    def sid(self) -> str:
        return self.room.local_participant.sid

    def _note(self, action: str) -> None:
        self.did.append((action, _now_ms()))

    def when(self, action: str) -> int:
        """Wall time of the last time that it did this, epoch ms."""
        return next(at for what, at in reversed(self.did) if what == action)

    async def join(self, *, encryption: rtc.E2EEOptions | None = None) -> None:
        """Join without hearing the others: decoding fifty of them would take half a core from the relay under test."""
        options = rtc.RoomOptions(auto_subscribe=False, encryption=encryption)
        await self.room.connect(self._server.url, self._token, options)
        self._note("join")

    async def publish(
        self,
        wav: Path | None = None,
        *,
        start_s: float = 0.0,
        loop: bool = False,
        source: rtc.TrackSource.ValueType = rtc.TrackSource.SOURCE_MICROPHONE,
    ) -> Microphone:
        """Publish a track; its audio begins ``start_s`` seconds into the WAV, and continues as silence after its
        end."""
        microphone = Microphone(wav, start_s=start_s, loop=loop)
        options = rtc.TrackPublishOptions(source=source)
        publication = await self.room.local_participant.publish_track(microphone.track, options)
        self._note("publish")
        microphone.start(publication.sid)
        self._microphones[publication.sid] = microphone
        return microphone

    def mute(self, microphone: Microphone) -> None:
        microphone.track.mute()
        self._note("mute")

    def unmute(self, microphone: Microphone) -> None:
        microphone.track.unmute()
        self._note("unmute")

    async def unpublish(self, microphone: Microphone) -> None:
        self._note("unpublish")
        await self.room.local_participant.unpublish_track(microphone.sid)
        await self._microphones.pop(microphone.sid).aclose()

    async def leave(self) -> None:
        """Leave the room now, in mid-word where audio is flowing."""
        self._note("leave")
        await self.room.disconnect()
        for microphone in self._microphones.values():
            await microphone.aclose()
        self._microphones.clear()


@contextlib.asynccontextmanager
async def participant(
    server: LiveKitServer, identity: str, room: str, *, kind: str | None = None
) -> AsyncIterator[Participant]:
    """A participant in the room, who leaves at the end of the block at the latest."""
    somebody = Participant(server, identity, room, kind=kind)
    await somebody.join()
    try:
        yield somebody
    finally:
        await somebody.leave()
