"""Decides which participants of a room the relay listens to."""

from collections.abc import Collection
from dataclasses import dataclass

from livekit import rtc


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
