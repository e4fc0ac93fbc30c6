"""Webhooks as the LiveKit server sends and signs them."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import timedelta

from google.protobuf.json_format import MessageToJson
from livekit import api

from tests.support.livekit.livekit_server import API_KEY, API_SECRET

CONTENT_TYPE = "application/webhook+json"


def body(event: str, room: str, *, metadata: str = "") -> bytes:
    """LiveKit's WebhookEvent about a room."""
    about = api.Room(name=room, sid=f"RM_{room}", metadata=metadata)
    return MessageToJson(api.WebhookEvent(event=event, room=about, id="EV_1")).encode()


def headers(
    content: bytes, *, key: str = API_KEY, secret: str = API_SECRET, valid: timedelta = timedelta(minutes=5)
) -> Mapping[str, str]:
    """The headers of a webhook with this body."""
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    token = api.AccessToken(key, secret).with_sha256(digest).with_ttl(valid)
    return {"Authorization": token.to_jwt(), "Content-Type": CONTENT_TYPE}
