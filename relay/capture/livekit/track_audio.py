"""The audio of one LiveKit track."""

import asyncio
import time
from collections.abc import AsyncIterator

from livekit import rtc
from livekit.protocol.models import AudioTrackFeature

from relay.capture.audio.frames import comes_after_missed, heard_from, missed_before, mono
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.livekit.frame_router import FrameRouter
from relay.capture.livekit.stats import RoomStats

MOST_MS = 30_000
"""The maximum backlog. Later audio is of little use, and memory is limited."""
CAUGHT_UP_MS = 1_000


class Backlog:
    """Decides which frames are skipped.

    On an overloaded machine each second of audio takes longer than a second, and the detectors fall further and further
    behind: by ``MOST_MS`` at most, then they continue with current audio. One gap is better than many.
    """

    def __init__(self) -> None:
        self._catching_up = False

    def passed_over(self, waiting_ms: int) -> bool:
        """Whether to skip the next frame, given the backlog behind it."""
        self._catching_up = waiting_ms > (CAUGHT_UP_MS if self._catching_up else MOST_MS)
        return self._catching_up


MOST_WAITING_MS = 30_000
"""The limit of audio that waits for a reader: 1 MB. A restarted session is ready long before."""

FRAME_MS = 32
"""The frame length: one window of voice activity detection (512 samples), so that nothing waits for a frame to fill,
and no task runs more often than needed."""


IN_FLIGHT_S = 0.7
"""After the server has stopped sending a track, its last audio comes for half a second (livekit-server 1.13)."""

FINISH_WITHIN_S = 1.0
"""By then, received audio has passed through the event loop, or never will."""


class TrackAudio:
    """An :class:`~relay.capture.audio.source.AudioSource` over a subscribed track.

    Audio is buffered from construction on, so none is lost while the reader gets ready. Audio that waits for longer
    than ``MOST_WAITING_MS`` is dropped, the oldest first: the reader sees a gap. Where even reading ahead does not keep
    up, audio is skipped (``Backlog``), and the next frame notes how much.

    Each frame notes its capture time: its arrival, less the delay of WebRTC's codec and jitter buffer from the room's
    statistics. Where the audio fails, the iteration raises the error after the received audio. Construct it in a
    running event loop; iterate it once.
    """

    def __init__(self, track: rtc.Track, stats: RoomStats, *, stereo: bool = False) -> None:
        """``stereo``: whether the track has two channels, which are mixed here; LiveKit would mix channels in antiphase
        to silence."""
        self._stats = stats
        self._channels = 2 if stereo else 1
        self._frames: asyncio.Queue[rtc.AudioFrame | None] = asyncio.Queue()
        self._track = track
        self._stream = self._stream_of(track)
        self._jitter = stats.follow(track)
        self._refused_at: float | None = None
        self._closed = False
        self._finishing = False
        self._failure: Exception | None = None
        self._dropped = 0
        self._backlog = Backlog()
        self._skipped_ms = 0
        """Audio that was skipped and is not noted on a frame yet."""
        self._reading = asyncio.create_task(self._read(self._stream), name="track_audio")
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def dropped_ms(self) -> int:
        return self._dropped * FRAME_MS

    @property
    def refused(self) -> bool:
        """Whether the server sends none of the track: its publisher, or the server, does not permit it."""
        refused = self._refused_at is not None and time.monotonic() - self._refused_at >= IN_FLIGHT_S
        return refused or self._jitter.withheld

    def refuse(self) -> None:
        """Mark the audio as withheld by the server, until some arrives that was not on its way already."""
        self._refused_at = time.monotonic()

    def renew(self, track: rtc.Track) -> None:
        """The track was subscribed to again: its audio continues here."""
        if track is self._track or self._closed or self._finishing:
            return
        self._stats.forget(self._jitter)
        former, reading = self._stream, self._reading
        self._track, self._stream, self._jitter = track, self._stream_of(track), self._stats.follow(track)
        self._reading = asyncio.create_task(self._read(self._stream), name="track_audio")
        reading.cancel()
        leaving = asyncio.create_task(former.aclose())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _read(self, stream: FrameRouter) -> None:
        try:
            async for frame, came in stream:
                if self._jitter.withheld:
                    continue  # another participant's, whose track came in the place of this one
                self._jitter.absent = 0
                if self._refused_at is not None and came - self._refused_at >= IN_FLIGHT_S:
                    self._refused_at = None
                if self._backlog.passed_over(stream.waiting * FRAME_MS):
                    self._skipped_ms += FRAME_MS
                    continue
                frame = mono(frame)
                heard_from(frame, came - frame.duration - self._jitter.behind_s)
                self._keep(frame)
                if self._finishing and not stream.waiting:
                    break
        except Exception as error:
            self._failure = error if stream is self._stream else None
        finally:
            if stream is self._stream:
                self._stats.forget(self._jitter)
                self._frames.put_nowait(None)

    def _stream_of(self, track: rtc.Track) -> FrameRouter:
        return FrameRouter(
            rtc.AudioStream.from_track(
                track=track, sample_rate=SAMPLE_RATE, num_channels=self._channels, frame_size_ms=FRAME_MS
            )
        )

    def _keep(self, frame: rtc.AudioFrame) -> None:
        if self._frames.qsize() >= MOST_WAITING_MS // FRAME_MS:
            self._dropped += 1
            if (oldest := self._frames.get_nowait()) is not None:
                self._skipped_ms += missed_before(oldest)
        if self._skipped_ms:
            comes_after_missed(frame, self._skipped_ms)
            self._skipped_ms = 0
        self._frames.put_nowait(frame)

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        return self

    async def __anext__(self) -> rtc.AudioFrame:
        if self._closed or (frame := await self._frames.get()) is None:
            self._frames.put_nowait(None)
            if self._failure is not None and not self._closed:
                raise self._failure
            raise StopAsyncIteration
        return frame

    def finish(self) -> None:
        """The track is gone: the iteration ends after the received audio. (``rtc.AudioStream`` would keep waiting.)"""
        self._finishing = True
        if self._stream.waiting:
            asyncio.get_running_loop().call_later(FINISH_WITHIN_S, self._reading.cancel)
        else:
            self._reading.cancel()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._stats.forget(self._jitter)
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await self._stream.aclose()


class NoAudio:
    """The audio of a track that cannot be received: nothing, until it is closed."""

    dropped_ms = 0
    refused = False

    def __init__(self) -> None:
        self._over = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        return self

    async def __anext__(self) -> rtc.AudioFrame:
        await self._over.wait()
        raise StopAsyncIteration

    def refuse(self) -> None: ...

    def renew(self, track: rtc.Track) -> None: ...

    def finish(self) -> None:
        self._over.set()

    async def aclose(self) -> None:
        self._over.set()


def is_stereo(publication: rtc.RemoteTrackPublication) -> bool:
    """Whether the publisher says that the track has two channels."""
    return int(AudioTrackFeature.TF_STEREO) in map(int, publication.audio_features)
