"""Polls WebRTC's statistics of a room's audio, for all tracks at once."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator
from weakref import WeakKeyDictionary

from livekit import rtc

PACKET_S = 0.020
"""WebRTC sends Opus in packets of this length, each once it is full."""

PIECE_S = 0.010
"""It delivers audio in pieces of this length, the first of a packet as soon as it is decoded."""

LOOK_AHEAD_S = 0.0065
"""Opus's encoder is behind by this much (``OPUS_GET_LOOKAHEAD``: 312 samples at 48 kHz)."""


ABSENT_LOOKS = 2
"""Consecutive polls, half a second apart, without the track: its audio is withheld."""


class JitterBuffer:
    """Computes from a track's repeated statistics how long WebRTC delays its audio, to correct capture times; and knows
    whether the audio is the track's at all.

    The server may send a new track on the receiver of one that it withholds: then the frames of the withheld one are
    another participant's, and LiveKit says nothing about it.
    """

    def __init__(self, number: int = 0) -> None:
        """``number`` grows with each track that the server sends."""
        self.number = number
        self.absent = 0
        """Consecutive polls at which WebRTC no longer had the track: the server sends none of it to this connection."""
        self.receiver = ""
        """WebRTC's id of what receives it; empty until it is known."""
        self.replaced = False
        """Whether a newer track has its receiver."""
        self._delay_s = 0.0
        self._emitted = 0
        self.behind_s = PACKET_S - PIECE_S + LOOK_AHEAD_S
        """Seconds between the capture and the delivery of audio: the codec's delay plus the buffer's average delay
        between the last two polls. Network transit is not included, since it is unknown here."""

    @property
    def withheld(self) -> bool:
        """Whether the server sends none of the track: what its receiver gives is another's."""
        return self.replaced or self.absent >= ABSENT_LOOKS

    def look(self, inbound: rtc.stats.InboundRtpStreamStats) -> None:
        """``jitterBufferDelay`` and ``jitterBufferEmittedCount`` of the W3C's webrtc-stats: both only grow, the first
        by each sample's own delay in seconds."""
        self.absent = 0
        emitted = inbound.jitter_buffer_emitted_count - self._emitted
        if emitted > 0:
            held_s = (inbound.jitter_buffer_delay - self._delay_s) / emitted
            self.behind_s = PACKET_S - PIECE_S + LOOK_AHEAD_S + held_s
        self._delay_s, self._emitted = inbound.jitter_buffer_delay, inbound.jitter_buffer_emitted_count


LOOK_EVERY_S = 0.5
"""The poll interval. One poll takes a millisecond or two."""

_ANSWER_S = 10.0
"""An answer that takes longer does not come: the connection is being re-established."""

log = logging.getLogger(__name__)


class RoomStats:
    """Updates the jitter estimates of a room's tracks, for as long as any track is followed.

    One request covers all tracks, and never two run at a time: during a request, livekit's rtc package (1.1.21)
    delivers every frame of every track to the caller. With a request per track, fifty of them in a process that was
    briefly busy kept it busy permanently, because each answer delayed all the others. Use it on a running event loop.
    """

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._followed: dict[JitterBuffer, rtc.Track] = {}
        self._many = 0
        self._numbers: WeakKeyDictionary[rtc.Track, int] = WeakKeyDictionary()
        """A track may be followed again, while another has its receiver."""
        self._identified: dict[str, JitterBuffer] = {}
        self._looking: asyncio.Task[None] | None = None

    def follow(self, track: rtc.Track) -> JitterBuffer:
        """The track's jitter estimate, updated until it is forgotten."""
        if track not in self._numbers:
            self._many += 1
            self._numbers[track] = self._many
        buffer = JitterBuffer(self._numbers[track])
        self._followed[buffer] = track
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on(), name="room_stats")
        return buffer

    def forget(self, buffer: JitterBuffer) -> None:
        self._followed.pop(buffer, None)
        self._assign_receivers()
        if self._looking is not None and not self._followed:
            self._looking.cancel()
            self._looking = None

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            known = set(self._identified.values())
            try:
                await self._look_at_all()
            except Exception as error:
                _note(error)
            else:
                self._count_absent(known)
            unknown = self._followed.keys() - self._identified.values()
            # the withheld ones last: what their receivers get may be a new track's
            for buffer in sorted((each for each in self._followed if each in unknown), key=_is_absent):
                try:
                    await self._identify(buffer)
                except TimeoutError as error:
                    _note(error)
                    self._ask_last(buffer)
                    break  # otherwise the known tracks would not be polled meanwhile
                except Exception as error:
                    _note(error)

    def _count_absent(self, known: Collection[JitterBuffer]) -> None:
        # No statistics are available during a reconnection.
        connected = self._room.connection_state == rtc.ConnectionState.CONN_CONNECTED
        there = set(self._identified.values())
        for buffer in self._followed:
            if not connected:
                buffer.absent = 0
            elif buffer not in there and (buffer in known or buffer.absent):
                buffer.absent += 1

    def _ask_last(self, buffer: JitterBuffer) -> None:
        if (track := self._followed.pop(buffer, None)) is not None:
            self._followed[buffer] = track

    async def _look_at_all(self) -> None:
        if not self._identified:
            return
        async with asyncio.timeout(_ANSWER_S):
            answer = await self._room.get_rtc_stats()
        known, self._identified = self._identified, {}
        # in a room with one peer connection for both directions, the publisher has all statistics
        for inbound in _inbound((*answer.publisher_stats, *answer.subscriber_stats)):
            buffer = known.get(inbound.track_identifier)
            if buffer in self._followed:
                buffer.look(inbound)
                self._identified[inbound.track_identifier] = buffer

    async def _identify(self, buffer: JitterBuffer) -> None:
        """The id of a track in the statistics appears only in its own entries."""
        if (track := self._followed.get(buffer)) is None or buffer.replaced:
            return
        async with asyncio.timeout(_ANSWER_S):
            answer = await track.get_stats()
        for inbound in _inbound(answer):
            buffer.receiver = inbound.track_identifier
            self._assign_receivers()
            if buffer.replaced:
                continue
            buffer.look(inbound)
            if inbound.track_identifier:
                self._identified[inbound.track_identifier] = buffer

    def _assign_receivers(self) -> None:
        """A receiver is for the newest track that came on it."""
        newest = {each.receiver: each for each in sorted(self._followed, key=lambda each: each.number)}
        for each in self._followed:
            each.replaced = bool(each.receiver) and newest[each.receiver].number != each.number


def _is_absent(buffer: JitterBuffer) -> bool:
    return buffer.absent > 0


def _inbound(stats: Iterable[rtc.stats.RtcStats]) -> Iterator[rtc.stats.InboundRtpStreamStats]:
    return (each.inbound_rtp.inbound for each in stats if each.HasField("inbound_rtp"))


def _note(error: Exception) -> None:
    # LiveKit raises nothing more specific; the times are slightly late then
    log.debug("WebRTC does not say how long it holds audio back: %s", type(error).__name__)
