"""Limits the concurrent audio tracks per room and per participant."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from livekit import rtc

from relay.events.operator import CaptureLimit

log = logging.getLogger(__name__)

OnLimited = Callable[[CaptureLimit, int, str | None], None]
"""Called with the limit, its value, and the sid of the participant concerned."""

Key = tuple[str, str, str]
"""(identity, participant sid, track sid): an identity that rejoins, and a track that is republished, are new."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``capture.max_tracks_per_participant`` and ``capture.max_streams_per_room``."""

    tracks_per_participant: int
    streams_per_room: int


NO_LIMITS = Limits(tracks_per_participant=10**9, streams_per_room=10**9)


class Places:
    """Counts the tracks that are listened to.

    A closing stream still costs resources for some seconds. It does not block a track that replaces its own (another
    microphone was chosen), but all streams of a participant, closing ones included, are at most twice the limit: a
    participant that publishes and unpublishes in a loop gets no more than that.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: set[Key] = set()
        self._of: Counter[str] = Counter()
        """Taken places by identity."""
        self._closing: Counter[str] = Counter()

    def take(self, key: Key) -> CaptureLimit | None:
        """Take a place for the track, or return the limit that it would exceed. Idempotent."""
        if key in self._taken:
            return None
        identity = key[0]
        most, most_in_room = self._limits.tracks_per_participant, self._limits.streams_per_room
        if self._of[identity] >= most or self._of[identity] + self._closing[identity] >= 2 * most:
            return "max_tracks_per_participant"
        if len(self._taken) >= most_in_room or len(self._taken) + self._closing.total() >= 2 * most_in_room:
            return "max_streams_per_room"
        self._taken.add(key)
        self._of[identity] += 1
        return None

    def has(self, key: Key) -> bool:
        """Whether the track has a place."""
        return key in self._taken

    def release(self, key: Key) -> bool:
        """Release the track; return whether it had a place."""
        if key not in self._taken:
            return False
        self._taken.remove(key)
        _count_down(self._of, key[0])
        return True

    def closing(self, key: Key) -> None:
        """Free the track's place while its stream is still closing."""
        self._closing[key[0]] += 1

    def closed(self, key: Key) -> None:
        """The stream that was :meth:`closing` has closed."""
        _count_down(self._closing, key[0])


class LimitReports:
    """Reports an exceeded limit once per participant, or once per room: to the operator's log and ``on_limited``."""

    def __init__(self, room: rtc.Room, limits: Limits, on_limited: OnLimited | None) -> None:
        self._room = room
        self._limits = limits
        self._on_limited = on_limited
        self._reported: set[tuple[CaptureLimit, str]] = set()

    def __call__(self, limit: CaptureLimit, key: Key) -> None:
        of_one = limit == "max_tracks_per_participant"
        about = (limit, key[0] if of_one else "")
        if about in self._reported:
            return
        self._reported.add(about)
        maximum = self._limits.tracks_per_participant if of_one else self._limits.streams_per_room
        log.warning(
            "%s in room %s has more audio tracks than capture.%s allows (%d): the others are not listened to until "
            "one ends",
            "A participant" if of_one else "Everybody together",
            self._room.name,
            limit,
            maximum,
        )
        if self._on_limited is not None:
            self._on_limited(limit, maximum, key[1] if of_one else None)


def _count_down(counter: Counter[str], identity: str) -> None:
    counter[identity] -= 1
    if not counter[identity]:
        del counter[identity]
