"""Takes the webhooks that the LiveKit server sends, and looks at the room that one is about."""

from collections.abc import Callable

from livekit.api import TokenVerifier, WebhookReceiver

from relay.capture.livekit.access import Access

EVENTS = frozenset({"room_started", "participant_joined", "track_published"})
"""The ones after which a room may need the relay's agent."""


class LiveKitHints:
    """Verifies webhooks with the project's key. Of what they say, only the room's name is used, and only as a hint."""

    def __init__(self, access: Access, look_now: Callable[[str], None]) -> None:
        """``look_now`` is given the name of a room to look at."""
        self._verifier = TokenVerifier(access.api_key, access.api_secret)
        self._receiver = WebhookReceiver(self._verifier)
        self._look_now = look_now

    def signed(self, authorization: str) -> bool:
        """Whether the header has the token of a webhook, signed with the project's key and not expired."""
        try:
            # a participant's token is signed with the same key, and has no hash of a body
            return bool(self._verifier.verify(authorization).sha256)
        except Exception:  # whatever else the token is: PyJWT has a dozen errors, and the claims are parsed unchecked
            return False

    def take(self, authorization: str, body: bytes) -> bool | None:
        """Whether the relay looks at a room because of it; None if the body is not the one that was signed."""
        try:
            event = self._receiver.receive(body.decode(), authorization)
        except Exception:  # the receiver raises Exception itself where the hash differs
            return None
        if event.event not in EVENTS or not event.room.name:
            return False
        self._look_now(event.room.name)
        return True
