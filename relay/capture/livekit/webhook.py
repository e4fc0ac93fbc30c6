"""Takes the webhooks that the LiveKit server sends, and looks at the room that one is about."""

import asyncio
from collections.abc import Callable

from livekit.api import TokenVerifier, WebhookReceiver

from relay.capture.livekit.access import Access
from relay.telemetry.metrics import Counter

EVENTS = frozenset({"room_started", "participant_joined", "track_published"})
"""The ones after which a room may need the relay's agent."""
LOOK_AGAIN_S = (0.05, 0.1, 0.2, 0.4)
"""After ``room_started``, which comes before anyone is in the room. ``participant_joined`` comes only when the
participant's media connection is up, 0.2 s after the server lists it."""


class LiveKitHints:
    """Verifies webhooks with the project's key. Of what they say, only the room's name is used, and only as a hint."""

    def __init__(self, access: Access, look_now: Callable[[str], bool], received: Counter) -> None:
        """``look_now`` is given the name of a room to look at, and returns whether this process covers the rooms;
        ``received`` counts them by ``outcome``."""
        self._received = received
        self._verifier = TokenVerifier(access.api_key, access.api_secret)
        self._receiver = WebhookReceiver(self._verifier)
        self._look_now = look_now

    def signed(self, authorization: str) -> bool:
        """Whether the header has the token of a webhook, signed with the project's key and not expired."""
        try:
            # a participant's token is signed with the same key, and has no hash of a body
            is_signed = bool(self._verifier.verify(authorization).sha256)
        except Exception:  # whatever else the token is: PyJWT has a dozen errors, and the claims are parsed unchecked
            is_signed = False
        if not is_signed:
            self._received.inc(("unsigned",))
        return is_signed

    def take(self, authorization: str, body: bytes) -> bool | None:
        """Whether the relay looks at a room because of it; None if the body is not the one that was signed."""
        try:
            event = self._receiver.receive(body.decode(), authorization)
        except Exception:  # the receiver raises Exception itself where the hash differs
            self._received.inc(("altered",))
            return None
        looks = event.event in EVENTS and bool(event.room.name) and self._look_now(event.room.name)
        if looks and event.event == "room_started":
            for seconds in LOOK_AGAIN_S:
                asyncio.get_running_loop().call_later(seconds, self._look_now, event.room.name)
        self._received.inc(("looked" if looks else "ignored",))
        return looks
