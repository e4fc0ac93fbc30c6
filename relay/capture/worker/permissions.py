"""What the relay may do in a room, and how it shows itself there: no more than two switches ask for."""

from livekit.agents import WorkerPermissions
from livekit.agents.types import ATTRIBUTE_AGENT_STATE


def permissions(*, visible: bool, forwards: bool) -> WorkerPermissions:
    """What to ask of the server for every job: ``capture.visible`` and ``capture.forward_transcripts``.

    Without the right to publish data the server takes transcripts and drops them without a word.
    """
    return WorkerPermissions(
        hidden=not visible, can_publish=False, can_publish_data=forwards, can_update_metadata=False
    )


def shown_as(*, visible: bool) -> dict[str, str]:
    """The attributes that a visible agent has from the moment it joins, and again after it had to join anew.

    Frontends wait for an agent's state before they show anything of it. The relay's never changes, it listens; so it
    comes with the token and takes no right to update metadata.
    """
    return {ATTRIBUTE_AGENT_STATE: "listening"} if visible else {}
