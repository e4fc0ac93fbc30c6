"""Whom the relay listens to in a room."""

from collections.abc import Collection, Mapping

from livekit import rtc
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF


def kind_name(kind: int) -> str:
    """LiveKit's participant kind as config.yaml writes it: standard, sip, connector, agent, egress, ingress, bridge.

    A kind that this version of the SDK does not know is ``unknown``.
    """
    try:
        # mypy sees the enum as a plain int in the SDK's stubs
        name = rtc.ParticipantKind.Name(kind)  # type: ignore[arg-type]
    except ValueError:
        return "unknown"
    return name.removeprefix("PARTICIPANT_KIND_").lower()


def accepts(kinds: Collection[str], kind: int, attributes: Mapping[str, str]) -> bool:
    """Whether a participant of this ``kind`` with these ``attributes`` is listened to.

    One who publishes on behalf of an agent (an avatar) speaks with the agent's voice, so it counts as an agent too.
    """
    if ATTRIBUTE_PUBLISH_ON_BEHALF in attributes and "agent" not in kinds:
        return False
    return kind_name(kind) in kinds


_SOURCES: dict[int, str] = {
    rtc.TrackSource.SOURCE_MICROPHONE: "microphone",
    rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO: "screen_share_audio",
}


def source_name(source: int) -> str:
    """LiveKit's track source as events write it: microphone, screen_share_audio or unknown."""
    return _SOURCES.get(source, "unknown")


SOURCES = frozenset({*_SOURCES.values(), "unknown"})
"""All that :func:`source_name` says."""
