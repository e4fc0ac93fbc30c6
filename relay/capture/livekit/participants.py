"""A room's participants: which ones the relay listens to, how events name them, and why they leave."""

from collections.abc import Collection
from dataclasses import dataclass

from livekit import rtc

from relay.events.envelope import ParticipantRef
from relay.events.omission import cut, shortened
from relay.events.stream import StreamEnd

LEFT_ON_PURPOSE = frozenset(
    {
        rtc.DisconnectReason.CLIENT_INITIATED,
        rtc.DisconnectReason.DUPLICATE_IDENTITY,
        rtc.DisconnectReason.PARTICIPANT_REMOVED,
    }
)
"""Reasons for which an agent left the room while the room stays open."""

ROOM_CLOSED = frozenset({rtc.DisconnectReason.ROOM_DELETED, rtc.DisconnectReason.ROOM_CLOSED})

UNPUBLISH_S = 0.25
"""A leaving participant's tracks are unpublished a few milliseconds before the participant disconnects, which gives the
reason."""


def kind_name(kind: int) -> str:
    """LiveKit's participant kind as config.yaml writes it: standard, sip, connector, agent, egress, ingress, bridge.

    A kind unknown to this version of the SDK is ``unknown``.
    """
    try:
        # mypy sees the enum as a plain int in the SDK's stubs
        name = rtc.ParticipantKind.Name(kind)  # type: ignore[arg-type]
    except ValueError:
        return "unknown"
    return name.removeprefix("PARTICIPANT_KIND_").lower()


def accepts(kinds: Collection[str], kind: int) -> bool:
    """Whether the relay listens to participants of this ``kind``.

    Only the kind counts: it comes from the token. Participants can set attributes themselves, such as the one with
    which an agent's avatar names the agent it publishes for (``lk.publish_on_behalf``), and so could evade capture.
    """
    return kind_name(kind) in kinds


_SOURCES: dict[int, str] = {
    rtc.TrackSource.SOURCE_MICROPHONE: "microphone",
    rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO: "screen_share_audio",
}


def source_name(source: int) -> str:
    """LiveKit's track source as events write it: microphone, screen_share_audio or unknown."""
    return _SOURCES.get(source, "unknown")


SOURCES = frozenset({*_SOURCES.values(), "unknown"})
"""All results of :func:`source_name`."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A participant, and the microphone track that the session's input uses."""

    participant: rtc.RemoteParticipant
    publication: rtc.RemoteTrackPublication

    @property
    def key(self) -> tuple[str, str]:
        """Changes when the participant rejoins or republishes."""
        return self.participant.sid, self.publication.sid


def why_gone(link: Linked, room: rtc.Room) -> StreamEnd:
    """Why the track is gone: unpublished, or its participant has left."""
    present = room.remote_participants.get(link.participant.identity)
    if present is not None and present.sid == link.participant.sid:
        return "unpublished"
    return "room_ended" if link.participant.disconnect_reason in ROOM_CLOSED else "disconnected"


def participant_ref(participant: rtc.RemoteParticipant) -> ParticipantRef:
    """A participant as events name them."""
    attributes, omitted = shortened(participant.attributes)
    return ParticipantRef(
        sid=participant.sid,
        identity=participant.identity,
        name=cut(participant.name),
        kind=kind_name(participant.kind),
        attributes=attributes,
        attributes_omitted=omitted,
    )


def joined_at_ms(participant: rtc.RemoteParticipant) -> int | None:
    """When the participant joined, in epoch milliseconds; None where unknown."""
    return None if participant.joined_at is None else round(participant.joined_at.timestamp() * 1000)
