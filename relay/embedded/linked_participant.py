"""Whom a session listens to."""

from collections.abc import Collection
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession

from relay.capture.livekit.linked import Linked
from relay.capture.livekit.participant_filter import accepts
from relay.capture.livekit.room import ROOM_CLOSED
from relay.events.stream import StreamEnd


def linked(session: AgentSession[Any], kinds: Collection[str]) -> Linked | None:
    """Whom the session is linked to by now, of these kinds; None for nobody, or for one without a microphone."""
    try:
        participant = session.room_io.linked_participant
    except RuntimeError:  # not started yet, or without a room
        return None
    if participant is None or not accepts(kinds, participant.kind):
        return None
    for publication in list(participant.track_publications.values()):
        # What LiveKit's room input takes, and nothing else (livekit.agents.voice.room_io).
        if publication.source == rtc.TrackSource.SOURCE_MICROPHONE and publication.track is not None:
            return Linked(participant, publication)
    return None


def gone(link: Linked, room: rtc.Room) -> StreamEnd | None:
    """Why nobody can be listened to there any more; None where it is the session that turned away."""
    present = room.remote_participants.get(link.participant.identity)
    if present is None or present.sid != link.participant.sid:
        return "room_ended" if link.participant.disconnect_reason in ROOM_CLOSED else "disconnected"
    there = link.publication.sid in present.track_publications and link.publication.track is not None
    return None if there else "unpublished"
