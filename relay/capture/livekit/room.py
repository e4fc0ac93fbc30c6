"""Follows a room's participants and tracks: one listener per audio track."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Any

from livekit import rtc

from relay.capture.audio.source import OpenListener, Track
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.livekit.access import Access, RoomSid, RoomsOnly
from relay.capture.livekit.participants import (
    LEFT_ON_PURPOSE,
    ROOM_CLOSED,
    SOURCES,
    UNPUBLISH_S,
    accepts,
    joined_at_ms,
    participant_ref,
    source_name,
)
from relay.capture.livekit.stats import RoomStats
from relay.capture.livekit.stream_limits import NO_LIMITS, Key, LimitReports, Limits, OnLimited, Places
from relay.capture.livekit.subscriptions import PublicationTimes, Subscriptions, WasHeard, key_of
from relay.capture.livekit.track_audio import NoAudio, TrackAudio, is_stereo
from relay.capture.livekit.track_supervisor import Opened, TrackSupervisor
from relay.clock import Clock
from relay.events.envelope import RoomRef
from relay.events.stream import StreamEnd

log = logging.getLogger(__name__)

_LAST_WORD_S = 0.5
"""When a room is closed, its job gets the request to end a few milliseconds before the reason."""


class RoomMembership:
    """Opens and closes a listener for every audio track of the accepted participants of ``room``.

    Construct it before the room is connected, connect with automatic subscription off (it subscribes only to the tracks
    it listens to), then call :meth:`start`. ``kinds`` and ``sources`` are those of ``capture.participants``; with
    ``access`` the server is asked which room this is after an outage. ``on_limited`` is called, once per participant
    and once per room, when a track waits because of ``limits``. ``was_heard`` returns, for a track whose publication
    was not seen, whether an earlier stream listened to it.
    """

    def __init__(
        self,
        room: rtc.Room,
        open_listener: OpenListener,
        kinds: Collection[str],
        clock: Clock,
        access: Access | RoomsOnly | None = None,
        *,
        sources: Collection[str] = SOURCES,
        limits: Limits = NO_LIMITS,
        on_limited: OnLimited | None = None,
        was_heard: WasHeard | None = None,
    ) -> None:
        self._room = room
        self._sid = RoomSid(room, access)
        self._stats = RoomStats(room)
        self._open_listener = open_listener
        self._kinds, self._sources = frozenset(kinds), frozenset(sources)
        self._clock = clock
        self._places = Places(limits)
        self._report_limit = LimitReports(room, limits, on_limited)
        self._supervisors: dict[Key, TrackSupervisor] = {}
        self._going: dict[TrackSupervisor, Key] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._published_at = PublicationTimes(clock, was_heard)
        self._guard = ErrorGuard()
        self._asking = Subscriptions(room, self._asked_for_nothing, self._guard)
        self._closed = False
        self._disconnected = asyncio.Event()
        self._room_closed = False
        handlers: dict[rtc.room.EventTypes, Callable[..., None]] = {
            "track_published": self._on_published,
            "track_subscribed": self._on_subscribed,
            "track_unsubscribed": lambda _, publication, participant: self._on_unsubscribed(publication, participant),
            "track_unpublished": self._on_gone,
            "track_muted": lambda participant, publication: self._on_muted(participant, publication, True),
            "track_unmuted": lambda participant, publication: self._on_muted(participant, publication, False),
            "participant_disconnected": self._on_left,
            "participant_permissions_changed": self._on_permissions,
            "reconnecting": self._published_at.lost_sight,
            "reconnected": self.start,
            "disconnected": self._on_disconnected,
        }
        for event, handler in handlers.items():
            room.on(event, self._guard(handler))

    def start(self) -> None:
        """Listen to what is in the room already. Called again after every reconnect, when events may have been
        missed."""
        if self._closed:
            return
        self._published_at.caught_up()
        there: set[Key] = set()
        for publication, participant in self._publications():
            there.add(key_of(participant, publication))
            self._subscribe(publication, participant)
            if publication.track is not None:
                self._on_subscribed(publication.track, publication, participant)
        present = {(identity, participant_sid) for identity, participant_sid, _ in there}
        for key in self._supervisors.keys() - there:
            self._free(key)
            self._end(self._supervisors.pop(key), "unpublished" if key[:2] in present else "disconnected")
        self._fill()

    async def close(self, reason: StreamEnd, *, within: float = 10.0) -> None:
        """Close all listeners concurrently, and open no other. Gives up after ``within`` seconds.

        ``reason`` is that of the streams, unless the room turns out to have been closed.
        """
        self._closed = True
        self._asking.close()
        if self._supervisors:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORD_S):
                    await self._disconnected.wait()
        self._end_all("room_ended" if self._room_closed else reason)
        if not self._closing:
            return
        _, open_still = await asyncio.wait(self._closing, timeout=within)
        if open_still:
            log.warning("%d listeners did not close within %g s and were given up", len(open_still), within)
            for task in open_still:
                task.cancel()
            await asyncio.gather(*open_still, return_exceptions=True)

    def _subscribe(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        key = key_of(participant, publication)
        if not self._wants(publication, participant):
            return
        if (limit := self._places.take(key)) is not None:
            self._report_limit(limit, key)
            return
        if publication.encryption_type != rtc.EncryptionType.NONE:
            self._hear(None, publication, participant)
            return
        self._asking.ask(publication, participant)

    def _free(self, key: Key) -> None:
        """The track is gone. Its stream, where there is one, takes a moment to close."""
        if self._places.release(key) and (supervisor := self._supervisors.get(key)) is not None:
            self._places.closing(key)
            supervisor.task.add_done_callback(lambda _: self._closed_stream(key))

    def _asked_for_nothing(self, key: Key) -> None:
        self._free(key)
        self._fill()

    def _closed_stream(self, key: Key) -> None:
        self._places.closed(key)
        self._fill()

    def _fill(self) -> None:
        """Assign free places to waiting tracks."""
        if self._closed:
            return
        for publication, participant in self._publications():
            if not self._places.has(key_of(participant, publication)):
                self._subscribe(publication, participant)

    def _publications(self) -> list[tuple[rtc.RemoteTrackPublication, rtc.RemoteParticipant]]:
        """All of the room, microphones first: they take the places that there are. LiveKit gives no order."""
        there = [
            (publication, participant)
            for participant in self._room.remote_participants.values()
            for publication in participant.track_publications.values()
        ]
        return sorted(there, key=lambda one: one[0].source != rtc.TrackSource.SOURCE_MICROPHONE)

    def _wants(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> bool:
        return (
            publication.kind == rtc.TrackKind.KIND_AUDIO
            and source_name(publication.source) in self._sources
            and accepts(self._kinds, participant.kind)
        )

    def _on_published(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        if self._closed:
            return
        self._published_at.published(publication.sid)
        self._subscribe(publication, participant)

    def _on_subscribed(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        key = key_of(participant, publication)
        self._asking.came(key)
        if self._closed or not self._wants(publication, participant):
            return
        if (supervisor := self._supervisors.get(key)) is not None:
            supervisor.renew(track)
            return
        if (limit := self._places.take(key)) is not None:  # subscribed to before an outage, but not any more
            self._report_limit(limit, key)
            publication.set_subscribed(False)
            return
        self._hear(track, publication, participant)

    def _hear(
        self, track: rtc.Track | None, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        """Open a stream. ``track`` is None where it is encrypted: it is not subscribed to then."""
        key = key_of(participant, publication)
        if key in self._supervisors:
            return
        subscribed_at = self._clock.now_ms()
        joined_at = joined_at_ms(participant)

        async def open_track(muted: bool) -> Opened:
            # before any await: it buffers audio while the listener opens
            audio = (
                NoAudio()
                if track is None
                else TrackAudio(publication.track or track, self._stats, stereo=is_stereo(publication))
            )
            try:
                described = Track(
                    room=RoomRef(sid=await self._sid(), name=self._room.name),
                    participant=participant_ref(participant),
                    sid=publication.sid,
                    source=source_name(publication.source),
                    audio=audio,
                    subscribed_at=subscribed_at,
                    joined_at=joined_at,
                    published_at=await self._published_at.of(publication.sid, joined_at),
                    muted=muted,
                    unheard="encrypted" if track is None else None,
                    refused=lambda: audio.refused,
                )
                listener = await self._open_listener(described)
                # The supervisor gets the audio only now: it passed nothing on that happened to the track meanwhile.
                if publication.track is None or not self._room.local_participant.permissions.can_subscribe:
                    audio.refuse()
                else:
                    audio.renew(publication.track)
            except BaseException:
                await audio.aclose()
                raise
            if listener is not None:
                self._published_at.forget(publication.sid)  # another stream missed nothing that this one has
            return Opened(audio, listener)

        supervisor = TrackSupervisor(publication.sid, publication.muted, open_track)
        self._supervisors[key] = supervisor
        self._closing.add(supervisor.task)
        supervisor.task.add_done_callback(self._closing.discard)

    def _on_muted(self, participant: rtc.Participant, publication: rtc.TrackPublication, muted: bool) -> None:
        supervisor = self._supervisors.get(key_of(participant, publication))
        if supervisor is not None:
            supervisor.mute(muted)

    def _on_unsubscribed(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        # For a track that is unpublished, the unsubscribed event comes first.
        asyncio.get_running_loop().call_later(UNPUBLISH_S, self._guard(self._withheld), publication, participant)

    def _withheld(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        supervisor = self._supervisors.get(key_of(participant, publication))
        if supervisor is not None and publication.track is None:
            supervisor.refuse()

    def _on_permissions(self, participant: rtc.Participant, permission: Any) -> None:
        if participant is self._room.local_participant and not permission.can_subscribe:
            for supervisor in self._supervisors.values():
                supervisor.refuse()

    def _on_gone(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        key = key_of(participant, publication)
        self._asking.came(key)
        self._free(key)
        supervisor = self._supervisors.pop(key, None)
        if supervisor is None:
            self._published_at.forget(publication.sid)
        else:  # its stream may be about to open
            supervisor.task.add_done_callback(lambda _: self._published_at.forget(publication.sid))
            self._going[supervisor] = key
            asyncio.get_running_loop().call_later(UNPUBLISH_S, self._end, supervisor, "unpublished")
        self._fill()

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        # when a room is closed, events of its participants may come before the room's own
        closed = participant.disconnect_reason in ROOM_CLOSED
        self._room_closed |= closed
        self._end_all("room_ended" if closed else "disconnected", of=(participant.identity, participant.sid))
        self._fill()

    def _on_disconnected(self, reason: int) -> None:
        self._disconnected.set()
        self._end_all("shutdown" if reason in LEFT_ON_PURPOSE else "room_ended")

    def _end_all(self, reason: StreamEnd, *, of: tuple[str, str] | None = None) -> None:
        supervisors = {supervisor: key for key, supervisor in self._supervisors.items()} | self._going
        for supervisor, key in supervisors.items():
            if of is None or key[:2] == of:
                self._free(key)
                self._supervisors.pop(key, None)
                self._end(supervisor, reason)

    def _end(self, supervisor: TrackSupervisor, reason: StreamEnd) -> None:
        self._going.pop(supervisor, None)
        supervisor.end(reason)
