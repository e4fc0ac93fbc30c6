"""Whom the relay listens to in a room."""

from collections.abc import Collection

from livekit import rtc


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


def accepts(kinds: Collection[str], kind: int) -> bool:
    """Whether a participant of this ``kind`` is listened to.

    Only the kind counts: it comes from the token. Attributes, such as the one by which an agent's avatar says for whom
    it publishes (``lk.publish_on_behalf``), may be set by participants themselves, who could so avoid being heard.
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
"""All that :func:`source_name` says."""
