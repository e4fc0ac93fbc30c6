"""The relay's permissions and appearance in a room: the minimum that two switches require."""

from livekit.agents import WorkerPermissions
from livekit.agents.types import ATTRIBUTE_AGENT_STATE


def permissions(*, visible: bool, forwards: bool) -> WorkerPermissions:
    """The permissions to request for every job: ``capture.visible`` and ``capture.forward_transcripts``.

    Without the right to publish data the server silently drops transcripts.
    """
    return WorkerPermissions(
        hidden=not visible, can_publish=False, can_publish_data=forwards, can_update_metadata=False
    )


def shown_as(*, visible: bool) -> dict[str, str]:
    """The attributes of a visible agent, from the moment it joins and after each rejoin.

    Frontends wait for an agent's state before they show it. The relay's state never changes, it listens; so it comes
    with the token and needs no right to update metadata.
    """
    return {ATTRIBUTE_AGENT_STATE: "listening"} if visible else {}
