"""Finds the participant that a session listens to."""

from collections.abc import Collection
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession

from relay.capture.livekit.linked import Linked
from relay.capture.livekit.participant_filter import accepts
from relay.capture.livekit.room import ROOM_CLOSED
from relay.events.stream import StreamEnd


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
    present = room.remote_participants.get(link.participant.identity)
    if present is None or present.sid != link.participant.sid:
        return "room_ended" if link.participant.disconnect_reason in ROOM_CLOSED else "disconnected"
    there = link.publication.sid in present.track_publications and link.publication.track is not None
    return None if there else "unpublished"
