"""The common interface of audio sources: a LiveKit track, a WAV file."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from livekit import rtc

from relay.events.envelope import ParticipantRef, RoomRef
from relay.events.stream import SourceFailure, StreamEnd

SAMPLE_RATE = 16_000
"""Hz. The rate of every source: the detectors work at this rate, and resampling once is cheapest."""

AHEAD_S = 1.0
"""A time that a provider reports may lie ahead of the newest audio by this much: some round to windows. A later one is
not about this audio: it counts from another beginning, or is made up."""


class AudioSource(Protocol):
    """The audio of one track, in order: 16 kHz mono 16-bit frames until it ends."""

    @property
    def dropped_ms(self) -> int:
        """Audio lost so far because it was not read in time, in milliseconds."""
        ...

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        """The one iteration, shared by all readers. Cancelling a read loses no audio, and another may follow: a
        restarted session continues where the previous one stopped. (Cancelling a read of an async generator would end
        it.)"""
        ...

    async def aclose(self) -> None:
        """End the iteration at once and release its resources. May be called more than once."""
        ...


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Track:
    """One audio track of one participant. Wall times are epoch milliseconds."""

    room: RoomRef
    participant: ParticipantRef
    sid: str
    source: str
    """LiveKit's track source (microphone, screen_share_audio, unknown); ``file`` for a WAV."""
    audio: AudioSource
    subscribed_at: int
    joined_at: int | None = None
    published_at: int | None = None
    """When the track was published, or the earliest time that it can have been; None where unknown, or where an earlier
    stream listened to the track."""
    muted: bool = False
    unheard: SourceFailure | None = None
    """Why its audio can never be received; None where it can."""
    refused: Callable[[], bool] = _never
    """Whether the server currently withholds the audio."""


class Listener(Protocol):
    """Listens to one track, from ``start`` until ``close``."""

    stream_id: str
    """The stream that it writes, as events name it."""

    def mute(self) -> None: ...

    def unmute(self) -> None: ...

    async def lost(self) -> None:
        """Wait, without limit, until the stream can no longer be written: another process took it over, or the log
        failed permanently. The caller should close this listener and open another."""
        ...

    async def ended(self) -> None:
        """Wait, without limit, until the audio ends by itself. Raises the source's error."""
        ...

    async def close(self, reason: StreamEnd) -> None:
        """Stop listening: received audio is transcribed and appended before this returns, within a bound."""
        ...


class OpenListener(Protocol):
    """Opens the listener of a track. None: another process already listens, so this one must not."""

    async def __call__(self, track: Track) -> Listener | None: ...
