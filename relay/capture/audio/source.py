"""The one interface of everything that can be listened to: a LiveKit track, a WAV file."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from livekit import rtc

from relay.events.envelope import ParticipantRef, RoomRef
from relay.events.source import SourceFailure
from relay.events.stream import StreamEnd

SAMPLE_RATE = 16_000
"""Hz. What every source yields: the detectors work at this rate, and resampling once is cheapest."""


class AudioSource(Protocol):
    """The audio of one track, in order: 16 kHz mono 16-bit frames until it ends."""

    @property
    def dropped_ms(self) -> int:
        """Audio so far, in milliseconds, that nobody took in time and nobody will get."""
        ...

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        """One iteration for all readers. To cancel a read costs no audio, and another may follow: a session that is
        made anew goes on where the one before was. (To cancel a read of an async generator would end it.)"""
        ...

    async def aclose(self) -> None:
        """End the iteration at once and free what it holds. May be called more than once."""
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
    """When the track was published, or the earliest time that it can have been; None where that is not known, or
    where the track was heard before."""
    muted: bool = False
    unheard: SourceFailure | None = None
    """Why nothing of its audio can ever be heard; None where it can."""
    refused: Callable[[], bool] = _never
    """Whether the server withholds the audio now."""


class Listener(Protocol):
    """Somebody who listens to one track, from ``start`` until ``close``."""

    stream_id: str
    """The stream that it writes, as events name it."""

    def mute(self) -> None: ...

    def unmute(self) -> None: ...

    async def lost(self) -> None:
        """Wait until what is heard can no longer be written down, for as long as that takes: somebody else took the
        stream over, or the log failed for good. Whoever waits should close this listener and open another."""
        ...

    async def ended(self) -> None:
        """Wait until the audio is over by itself, for as long as that takes. Raises what it broke with."""
        ...

    async def close(self, reason: StreamEnd) -> None:
        """Stop listening: what was heard is transcribed and appended before this returns, within a bound."""
        ...


class OpenListener(Protocol):
    """Begins to listen to a track. None: another process already does, so this one must not."""

    async def __call__(self, track: Track) -> Listener | None: ...
