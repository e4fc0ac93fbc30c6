"""Subscribes to LiveKit tracks, and retries until they arrive."""

import asyncio
import logging
from collections.abc import Callable

from livekit import rtc

from relay.capture.health.backoff import Backoff
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.livekit.stream_limits import Key

log = logging.getLogger(__name__)

ASK_AGAIN_S = (15.0, 30.0, 60.0)
"""Delays before the subscription to a missing track is retried; the last one repeats. LiveKit delivers tracks one after
the other: of fifty published at once, the last one arrives after about 20 s."""


def key_of(participant: rtc.Participant, publication: rtc.TrackPublication) -> Key:
    """Identifies the track."""
    return participant.identity, participant.sid, publication.sid


class Asking:
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
        there = self._room.remote_participants.get(participant.identity)
        if there is None or there.sid != participant.sid or publication.sid not in there.track_publications:
            self._on_gone(key)
            return
        level = logging.WARNING if backoff.failures == 1 else logging.DEBUG  # a missing permission is logged once
        log.log(level, "Track %s was published and has not come; asking LiveKit for it until it does", publication.sid)
        publication.set_subscribed(False)
        publication.set_subscribed(True)
        self._await(publication, participant, backoff)
