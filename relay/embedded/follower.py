"""Follows a session from start to close: one recording per track that it listens to."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession, CloseEvent, CloseReason, ErrorEvent, llm

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import Outages
from relay.capture.livekit.participants import (
    UNPUBLISH_S,
    Linked,
    accepts,
    joined_at_ms,
    participant_ref,
    source_name,
    why_gone,
)
from relay.capture.livekit.stats import JitterBuffer, RoomStats
from relay.capture.session.tap import SessionTap
from relay.clock import Clock
from relay.embedded.failures import Failures, Transcriber
from relay.embedded.media import MediaClock
from relay.embedded.recording import HeardTrack, Recording, SessionDetectors
from relay.embedded.turnover import Turnover
from relay.events.envelope import RoomRef
from relay.events.stream import StreamEnd
from relay.speech.observations import (
    Anchored,
    Ended,
    Leaving,
    Muted,
    Observation,
    SourceDown,
    SourceUp,
    TurnEnded,
    Unmuted,
)


def linked(session: AgentSession[Any], kinds: Collection[str]) -> Linked | None:
    """The linked participant of these kinds; None without one, or for one without a microphone."""
    try:
        participant = session.room_io.linked_participant
    except RuntimeError:  # not started yet, or without a room
        return None
    if participant is None or not accepts(kinds, participant.kind):
        return None
    for publication in list(participant.track_publications.values()):
        # The rule of LiveKit's room input (livekit.agents.voice.room_io).
        if publication.source == rtc.TrackSource.SOURCE_MICROPHONE and publication.track is not None:
            return Linked(participant, publication)
    return None


def gone(link: Linked, room: rtc.Room) -> StreamEnd | None:
    """Why the participant can no longer be listened to; None where the session switched to another one."""
    reason = why_gone(link, room)
    published = link.publication.sid in link.participant.track_publications and link.publication.track is not None
    return None if reason == "unpublished" and published else reason


LOOK_EVERY_S = 0.25
"""LiveKit does not report when a session switches to another participant, so the follower polls."""
SETTLE_S = 3.0
"""After a track ends, its last speech may still get its text. (A closing session reports when it is done.)"""

_CHANGES: tuple[rtc.room.EventTypes, ...] = (
    "participant_connected",
    "participant_disconnected",
    "track_subscribed",
    "track_unsubscribed",
    "track_unpublished",
    "track_muted",
    "track_unmuted",
    "disconnected",
)


class Follower:
    """Follows one session. Lives on the agent's event loop. ``record`` gets each recording as it begins; ``detectors``
    names the observed detectors as events do."""

    def __init__(
        self,
        session: AgentSession[Any],
        room: rtc.Room,
        room_ref: RoomRef,
        *,
        kinds: Collection[str],
        detectors: Callable[[AgentSession[Any]], SessionDetectors],
        media: MediaClock,
        outages: Outages,
        record: Callable[[Recording], None],
        clock: Clock,
        guard: ErrorGuard,
    ) -> None:
        self._session = session
        self._room = room
        self._room_ref = room_ref
        self._kinds = kinds
        self._detectors = detectors
        self._media = media
        self._outages = outages
        self._failures = Failures(outages)
        self._record = record
        self._clock = clock
        self._link: Linked | None = None
        self._recording: Recording | None = None
        self._began_ms = 0
        self._identity: str | None = None
        """Of the participant whose track was recorded last."""
        self._turnover = Turnover(round(LOOK_EVERY_S * 1000))
        self._muted = False
        self._lost_at: float | None = None
        self._leaving: StreamEnd | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._stats = RoomStats(room)
        self._buffers: dict[rtc.Track, JitterBuffer] = {}
        """Of every audio track in the room: another one may come in the place of the linked one, which is withheld."""
        self._track: rtc.Track | None = None
        """The linked one."""
        self._audio: Outages | None = None
        self._loop = asyncio.get_running_loop()
        self._take_times_of = guard(self._timed_by)
        self._changed = guard(self._look)
        self._poll = guard(self._looked)
        self._arrived = guard(self._track_arrived)
        self._left = guard(self._track_left)
        SessionTap(self.report, on_closed=self._session_closed, realtime=True, guard=guard).attach(session)
        session.on("error", guard(self._failed))
        for event in _CHANGES:
            room.on(event, self._changed)
        room.on("track_subscribed", self._arrived)
        room.on("track_unsubscribed", self._left)
        for participant in room.remote_participants.values():
            for publication in participant.track_publications.values():
                self._arrived(publication.track)
        self._poll()

    def report(self, observation: Observation) -> None:
        """Handle an observation of a detector or the session."""
        if self._closed:
            return
        if not isinstance(observation, Anchored):
            self._look()
            self._failures.observed(observation, self._transcriber)
        if isinstance(observation, TurnEnded) and isinstance(self._session.llm, llm.RealtimeModel):
            # LiveKit reports 1.0 where the model gives no confidence.
            observation = replace(observation, confidence=None)
        if self._withheld and not isinstance(observation, Anchored | SourceDown | SourceUp):
            return  # maybe of another participant, whose track came in the place of this one
        if not self._turnover.of_former(observation) and self._recording is not None:
            self._recording.report(observation)

    def close(self, reason: StreamEnd) -> None:
        """Stop following."""
        if self._closed:
            return
        self._end(self._leaving or reason)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for event in _CHANGES:
            self._room.off(event, self._changed)
        self._room.off("track_subscribed", self._arrived)
        self._room.off("track_unsubscribed", self._left)
        for track in list(self._buffers):
            self._left(track)

    @property
    def _transcriber(self) -> Transcriber:
        has_model = isinstance(self._session.llm, llm.RealtimeModel)
        return "realtime" if has_model and self._session.stt is None else "stt"

    def _failed(self, event: ErrorEvent) -> None:
        self._failures.failed(event, self._loop.time())

    def _session_closed(self, event: CloseEvent) -> None:
        if event.reason is CloseReason.ERROR:
            self._outages.down("session", "lost", "LiveKit closed the agent session for an error")
        left = event.reason is CloseReason.PARTICIPANT_DISCONNECTED
        why = None if self._link is None else gone(self._link, self._room)
        self.close(why or ("disconnected" if left else "shutdown"))

    def _looked(self) -> None:
        # First, so that it is retried if anything below fails.
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._poll)
        self._look()
        self._failures.look(self._loop.time())

    def _look(self, *_: object) -> None:
        if self._closed:
            return
        now = linked(self._session, self._kinds)
        if now is not None and (self._link is None or now.key != self._link.key):
            if self._link is not None:
                # The session switched to another participant, or to another of the participant's tracks.
                self._end(gone(self._link, self._room) or "shutdown")
            self._begin(now)
        elif now is not None:
            self._back()
            if now.publication.track is not self._track:  # subscribed to again
                self._take_times_of(now.publication.track)
            self._link = now
            self._mute(now.publication.muted)
            self._check_audio()
        elif self._link is not None:
            self._gone(self._link)

    def _begin(self, link: Linked) -> None:
        self._link, self._lost_at, self._leaving = link, None, None
        self._muted = link.publication.muted
        # Observations from before the first participant was known belong to that participant.
        self._began_ms = 0 if self._identity is None else self._media.heard_ms
        if self._identity not in (None, link.participant.identity):
            self._turnover.switched(self._began_ms, self._clock.now_ms())
        self._identity = link.participant.identity
        heard = HeardTrack(
            room=self._room_ref,
            participant=participant_ref(link.participant),
            track_sid=link.publication.sid,
            track_source=source_name(link.publication.source),
            subscribed_at=self._clock.now_ms(),
            joined_at=joined_at_ms(link.participant),
            muted=self._muted,
            detectors=self._detectors(self._session),
        )
        self._recording = Recording(heard, self._began_ms, lambda: self._media.heard_ms)
        self._audio = Outages(self._clock, self._recording.report, self._outages.complain)
        self._take_times_of(link.publication.track)
        self._media.tie_again()
        self._record(self._recording)
        self._outages.report_again()

    def _timed_by(self, track: rtc.Track | None) -> None:
        """Times are corrected by this track's audio delay; without a track they stay as they are."""
        self._track = track
        self._media.jitter = None if track is None else self._buffer_of(track)

    def _buffer_of(self, track: rtc.Track) -> JitterBuffer:
        if track not in self._buffers:
            self._buffers[track] = self._stats.follow(track)
        return self._buffers[track]

    def _track_arrived(self, track: object, *_: object) -> None:
        if isinstance(track, rtc.RemoteAudioTrack):
            self._buffer_of(track)

    def _track_left(self, track: rtc.Track, *_: object) -> None:
        if (buffer := self._buffers.pop(track, None)) is not None:
            self._stats.forget(buffer)

    @property
    def _withheld(self) -> bool:
        return self._media.jitter is not None and self._media.jitter.withheld

    def _check_audio(self) -> None:
        if self._audio is None:
            return
        if self._withheld:
            self._audio.down("audio", "not_permitted", "LiveKit withholds the audio of the participant listened to")
        else:
            self._audio.up("audio", missed_ms=None)

    def _mute(self, muted: bool) -> None:
        if self._recording is not None and muted != self._muted:
            self._muted = muted
            self._recording.report(Muted() if muted else Unmuted())

    def _gone(self, link: Linked) -> None:
        """Handle the end of the track; its last speech may not have its text yet."""
        now = self._loop.time()
        self._lost_at = now if self._lost_at is None else self._lost_at
        why = gone(link, self._room) or "shutdown"
        if self._leaving is None:
            if why == "unpublished" and now - self._lost_at < UNPUBLISH_S:
                self._loop.call_later(UNPUBLISH_S, self._changed)
                return
            self._leaving = why
            if self._recording is not None:
                self._recording.report(Leaving(why))
        if now - self._lost_at >= SETTLE_S:
            self._end(self._leaving)

    def _back(self) -> None:
        """The track is here, also after a full reconnect of the agent, for which everybody left and came back."""
        if self._leaving is not None and self._recording is not None:
            self._recording.report(Leaving(None))
        self._leaving = self._lost_at = None

    def _end(self, reason: StreamEnd) -> None:
        if self._recording is not None:
            heard_ms = self._media.heard_ms - self._began_ms
            self._recording.report(Ended(reason, heard_ms=heard_ms or None))
            self._take_times_of(None)
        self._recording = self._audio = self._link = self._leaving = self._lost_at = None
