"""Subscribes to LiveKit tracks, retries until they arrive, and notes when they were published."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from livekit import rtc

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import Backoff
from relay.capture.livekit.stream_limits import Key
from relay.clock import Clock

log = logging.getLogger(__name__)

ASK_AGAIN_S = (15.0, 30.0, 60.0)
"""Delays before the subscription to a missing track is retried; the last one repeats. LiveKit delivers tracks one after
the other: of fifty published at once, the last one arrives after about 20 s."""


WasHeard = Callable[[str], Awaitable[bool]]
"""Called with a track's sid."""


def key_of(participant: rtc.Participant, publication: rtc.TrackPublication) -> Key:
    """Identifies the track."""
    return participant.identity, participant.sid, publication.sid


class Subscriptions:
    """Subscribes to tracks of ``room``. ``on_gone`` is called for a requested track that never arrived and is gone.
    Lives on a running event loop."""

    def __init__(self, room: rtc.Room, on_gone: Callable[[Key], None], guard: ErrorGuard) -> None:
        self._room = room
        self._on_gone = on_gone
        self._guard = guard
        self._awaited: dict[Key, asyncio.TimerHandle] = {}

    def ask(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        """Subscribe to a track."""
        publication.set_subscribed(True)
        self._await(publication, participant, Backoff(ASK_AGAIN_S))

    def came(self, key: Key) -> None:
        """The track arrived, or is not wanted any more."""
        if (timer := self._awaited.pop(key, None)) is not None:
            timer.cancel()

    def close(self) -> None:
        """Cancel all requests."""
        for timer in self._awaited.values():
            timer.cancel()

    def _await(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant, backoff: Backoff
    ) -> None:
        key = key_of(participant, publication)
        self.came(key)
        ask = self._guard(self._ask_again)
        loop = asyncio.get_running_loop()
        self._awaited[key] = loop.call_later(backoff.wait_s(), ask, publication, participant, backoff)

    def _ask_again(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant, backoff: Backoff
    ) -> None:
        key = key_of(participant, publication)
        del self._awaited[key]
        present = self._room.remote_participants.get(participant.identity)
        if present is None or present.sid != participant.sid or publication.sid not in present.track_publications:
            self._on_gone(key)
            return
        level = logging.WARNING if backoff.failures == 1 else logging.DEBUG  # a missing permission is logged once
        log.log(level, "Track %s was published and has not come; asking LiveKit for it until it does", publication.sid)
        publication.set_subscribed(False)
        publication.set_subscribed(True)
        self._await(publication, participant, backoff)


class PublicationTimes:
    """When the tracks of a room were published, in epoch milliseconds.

    A track that was there already was published between its participant's joining, or the loss of the connection, and
    now. ``was_heard`` returns whether an earlier stream listened to it: then no audio of it was missed.
    """

    def __init__(self, clock: Clock, was_heard: WasHeard | None) -> None:
        self._clock = clock
        self._was_heard = was_heard
        self._at: dict[str, int] = {}
        self._complete = False
        self._lost_sight_at: int | None = None

    def caught_up(self) -> None:
        """All tracks of the room are known: a new one is published when its event comes."""
        self._complete = True

    def lost_sight(self) -> None:
        """The connection was lost: until the room is complete again, the times of new tracks are unknown."""
        self._complete = False
        self._lost_sight_at = self._clock.now_ms()

    def published(self, track_sid: str) -> None:
        """The event of a new track came."""
        if self._complete:
            self._at[track_sid] = self._clock.now_ms()

    def forget(self, track_sid: str) -> None:
        self._at.pop(track_sid, None)

    async def of(self, track_sid: str, joined_at: int | None) -> int | None:
        """The time, or the earliest possible one; None where unknown, or where an earlier stream listened to it."""
        seen = self._at.get(track_sid)
        if seen is not None or joined_at is None or self._was_heard is None or await self._was_heard(track_sid):
            return seen
        return joined_at if self._lost_sight_at is None else max(joined_at, self._lost_sight_at)
